# cloud-adapters: what a relay, a gateway and a model write
# SPDX-License-Identifier: Apache-2.0
foreach(_name IN ITEMS bhttp ohttp_response ohttp_keys sse openai_answer)
  sluice_fuzzer(${_name} SOURCES fuzz_${_name}.c LINKS sluice::cloud CORPUS corpus/${_name})
endforeach()
