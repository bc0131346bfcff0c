# SluiceTargets.cmake - how a room declares its library, tests, fuzzers and programs
#
#   sluice_library(<component> SOURCES a.c ... [PUBLIC sluice::base ...] [PRIVATE ...])
#   sluice_isa_sources(<component> <isa> <file.c> <flags>...)
#   sluice_program(<name> SOURCES a.c ... [LINKS sluice::sdk ...])
#   sluice_test(<name> SOURCES a.c ... [LINKS ...] [LABELS unit] [TIMEOUT 60] [ARGS ...])
#   sluice_fuzzer(<name> SOURCES a.c ... [LINKS ...] [CORPUS folder])
#
# SPDX-License-Identifier: Apache-2.0
include_guard(GLOBAL)
include(CheckCCompilerFlag)

# ---- for every target below this folder -------------------------------------------------------------

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF) # a platform file that needs POSIX asks for it with a feature test macro
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")

string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" _processor)
if(_processor MATCHES "^(x86_64|amd64)$")
  set(SLUICE_ARCH x86_64)
elseif(_processor MATCHES "^(aarch64|arm64)")
  set(SLUICE_ARCH aarch64)
else()
  set(SLUICE_ARCH other)
endif()

# A function or table nobody refers to must be able to leave the app, so each has its own section.
# No contraction: a fused multiply-add the compiler chose would change results from build to build;
# kernels that want one name it.  File names in assertions begin at the root, wherever that lies.
add_compile_options(-ffunction-sections -fdata-sections -fstack-protector-strong -ffp-contract=off
                    "-fmacro-prefix-map=${PROJECT_SOURCE_DIR}/=")
if(CMAKE_SIZEOF_VOID_P EQUAL 4)
  # 64-bit file sizes and inode numbers: else stat() and readdir() fail on large disks with EOVERFLOW
  add_compile_definitions(_FILE_OFFSET_BITS=64)
endif()
if(APPLE)
  add_link_options(-Wl,-dead_strip)
else()
  add_link_options(-Wl,--gc-sections)
endif()

set(SLUICE_INSTRUMENTED OFF) # such builds are for running tests: nothing of them is installed or measured
if(SLUICE_SANITIZE)
  set(SLUICE_INSTRUMENTED ON)
  add_compile_options(-fsanitize=${SLUICE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${SLUICE_SANITIZE})
endif()
if(SLUICE_FUZZ)
  set(SLUICE_INSTRUMENTED ON)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "SLUICE_FUZZ needs clang, which brings libFuzzer")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(SLUICE_COVERAGE)
  set(SLUICE_INSTRUMENTED ON)
  add_compile_options(--coverage -fprofile-update=atomic)
  add_link_options(--coverage)
endif()

# Warnings, and where includes begin: every room is included by its path from the root.
add_library(sluice_flags INTERFACE)
target_include_directories(sluice_flags INTERFACE "${PROJECT_SOURCE_DIR}" "${PROJECT_SOURCE_DIR}/sdk/include")
target_compile_options(sluice_flags INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Wundef -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
  $<$<BOOL:${SLUICE_WERROR}>:-Werror>)
if(SLUICE_INSTRUMENTED AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
  # the checks a sanitizer puts in between mislead the warnings that follow values through a function
  target_compile_options(sluice_flags INTERFACE -Wno-error=format-truncation -Wno-error=format-overflow
    -Wno-error=maybe-uninitialized -Wno-error=stringop-overflow -Wno-error=array-bounds -Wno-error=restrict)
endif()
target_link_libraries(sluice_flags INTERFACE Threads::Threads $<$<BOOL:${UNIX}>:m>)

# ---- rooms ----------------------------------------------------------------------------------------

function(sluice_library component)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;PUBLIC;PRIVATE")
  _sluice_no_leftovers(sluice_library ${component} "${arg_UNPARSED_ARGUMENTS}")
  set(target sluice_${component})
  add_library(${target} STATIC ${arg_SOURCES})
  add_library(sluice::${component} ALIAS ${target})
  target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}" "${PROJECT_SOURCE_DIR}/sdk/include")
  target_link_libraries(${target} PUBLIC ${arg_PUBLIC} PRIVATE ${arg_PRIVATE} sluice_flags)
endfunction()

# One file of a component for one instruction set.  The flags are that file's alone: every other object
# must run on the oldest processor.  A compiler that does not know them leaves the file out, and the
# component goes without SLUICE_WITH_<ISA>.
function(sluice_isa_sources component isa file)
  string(TOUPPER "${isa}" ISA)
  string(REPLACE ";" " " flags "${ARGN}")
  check_c_compiler_flag("${flags}" SLUICE_COMPILER_HAS_${ISA})
  if(NOT SLUICE_COMPILER_HAS_${ISA})
    message(STATUS "sluice::${component}: compiler lacks ${flags}, ${file} left out")
    return()
  endif()
  target_sources(sluice_${component} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
  set_source_files_properties("${CMAKE_CURRENT_SOURCE_DIR}/${file}" PROPERTIES COMPILE_OPTIONS "${ARGN}")
  target_compile_definitions(sluice_${component} PRIVATE SLUICE_WITH_${ISA})
endfunction()

# An executable in <build>/bin that is called <name>.
function(sluice_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINKS")
  _sluice_no_leftovers(sluice_program ${name} "${arg_UNPARSED_ARGUMENTS}")
  set(target ${name})
  if(name STREQUAL "sluice")
    set(target sluice_cli) # the name of the installed library's target
  endif()
  add_executable(${target} ${arg_SOURCES})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${name})
  target_link_libraries(${target} PRIVATE ${arg_LINKS} sluice_flags)
  if(NOT TARGET sluice_programs)
    add_custom_target(sluice_programs) # all of them, without the tests
  endif()
  add_dependencies(sluice_programs ${target})
endfunction()

# ---- tests ----------------------------------------------------------------------------------------
#
# Labels choose where a test runs besides the plain build (tests/run.sh): `unit`, `kernels` and `fuzz`
# also under the ARM emulator, `threads` and `integration` also with the thread sanitizer, `bench` not with sanitizers.

set(SLUICE_TEST_BIN "${PROJECT_BINARY_DIR}/tests/bin")

# What every test gets: the source root, strict sanitizers, and more time where the machine is slow.
function(_sluice_test_properties name timeout labels)
  if(SLUICE_INSTRUMENTED OR CMAKE_CROSSCOMPILING)
    math(EXPR timeout "${timeout} * 5")
  endif()
  set_tests_properties(${name} PROPERTIES
    TIMEOUT ${timeout}
    LABELS "${labels}"
    SKIP_RETURN_CODE 77
    WORKING_DIRECTORY "${PROJECT_BINARY_DIR}"
    ENVIRONMENT "SLUICE_SOURCE_DIR=${PROJECT_SOURCE_DIR};ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1;UBSAN_OPTIONS=print_stacktrace=1;TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1")
endfunction()

function(sluice_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;LINKS;LABELS;ARGS")
  _sluice_no_leftovers(sluice_test ${name} "${arg_UNPARSED_ARGUMENTS}")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 60)
  endif()
  if(CMAKE_CURRENT_SOURCE_DIR MATCHES "/tests/([a-z]+)") # the folder is a label of its own
    list(APPEND arg_LABELS ${CMAKE_MATCH_1})
    list(REMOVE_DUPLICATES arg_LABELS)
  endif()
  add_executable(test_${name} ${arg_SOURCES})
  set_target_properties(test_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${SLUICE_TEST_BIN}")
  target_link_libraries(test_${name} PRIVATE ${arg_LINKS} sluice_dep::cmocka sluice_flags)
  add_test(NAME ${name} COMMAND test_${name} ${arg_ARGS})
  _sluice_test_properties(${name} ${arg_TIMEOUT} "${arg_LABELS}")
endfunction()

# A function LLVMFuzzerTestOneInput.  With SLUICE_FUZZ it becomes a fuzzer whose test runs it for a
# while; in every other build a small driver feeds it the corpus, and the corpus bent a little.
function(sluice_fuzzer name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "CORPUS" "SOURCES;LINKS")
  _sluice_no_leftovers(sluice_fuzzer ${name} "${arg_UNPARSED_ARGUMENTS}")
  set(corpus "")
  if(arg_CORPUS)
    get_filename_component(corpus "${arg_CORPUS}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  string(REGEX REPLACE "^fuzz_" "" name "${name}")
  set(target fuzz_${name})
  add_executable(${target} ${arg_SOURCES})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${SLUICE_TEST_BIN}")
  target_link_libraries(${target} PRIVATE ${arg_LINKS} sluice_flags)
  # the entry point has no header that would declare it; a source's own options come after the target's
  set_source_files_properties(${arg_SOURCES} PROPERTIES COMPILE_OPTIONS -Wno-missing-prototypes)
  if(SLUICE_FUZZ)
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
    set(found "${PROJECT_BINARY_DIR}/corpus/${name}") # the first folder receives what the fuzzer finds
    file(MAKE_DIRECTORY "${found}")
    add_test(NAME ${target} COMMAND ${target} -max_total_time=20 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
                                              "${found}" ${corpus})
    _sluice_test_properties(${target} 60 fuzz)
  else()
    target_sources(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests/support/fuzz_replay.c")
    add_test(NAME ${target} COMMAND ${target} ${corpus})
    _sluice_test_properties(${target} 60 fuzz)
  endif()
endfunction()

# A misspelt keyword would otherwise be swallowed as a source or a link.
function(_sluice_no_leftovers function name leftovers)
  if(leftovers)
    message(FATAL_ERROR "${function}(${name}): what is '${leftovers}'?")
  endif()
endfunction()
