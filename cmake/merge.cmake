# merge.cmake - make one archive of our components and their third parties (run by SluiceInstall.cmake)
#
#   cmake -DOUT=libsluice.a -DCOMPONENTS=a.a;b.a -DTHIRD_PARTY=c.a;d.a -DEXPORTS=exports.txt
#         -DCC=cc -DAR=ar -DRANLIB=ranlib [-DTARGET=triplet] [-DOBJCOPY=objcopy] [-DAPPLE=1] -P merge.cmake
#
# Without objcopy the archives are only put together, and every symbol stays as it was.
#
# SPDX-License-Identifier: Apache-2.0
cmake_minimum_required(VERSION 3.22)

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "merging ${OUT} failed: ${command}")
  endif()
endfunction()

file(REMOVE "${OUT}")
if(OBJCOPY)
  set(object "${OUT}.o")
  set(target "")
  if(TARGET)
    set(target "--target=${TARGET}")
  endif()
  # Ours whole, of the others what ours reach.  --unique: sections of the same name stay separate, else
  # every string literal of every file would become one section that nothing can take apart again.
  run("${CC}" ${target} -r -nostdlib -o "${object}" -Wl,--unique
      -Wl,--whole-archive ${COMPONENTS} -Wl,--no-whole-archive -Wl,--start-group ${THIRD_PARTY} -Wl,--end-group)
  run("${OBJCOPY}" "--keep-global-symbols=${EXPORTS}" "${object}")
  run("${AR}" rcsD "${OUT}" "${object}")
  file(REMOVE "${object}")
elseif(APPLE)
  run(libtool -static -o "${OUT}" ${COMPONENTS} ${THIRD_PARTY})
else()
  set(script "CREATE ${OUT}\n")
  foreach(archive IN LISTS COMPONENTS THIRD_PARTY)
    string(APPEND script "ADDLIB ${archive}\n")
  endforeach()
  file(WRITE "${OUT}.mri" "${script}SAVE\nEND\n")
  execute_process(COMMAND "${AR}" -M INPUT_FILE "${OUT}.mri" RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "merging ${OUT} failed: ${AR} -M < ${OUT}.mri")
  endif()
  run("${RANLIB}" "${OUT}")
endif()
