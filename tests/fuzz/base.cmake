# SPDX-License-Identifier: Apache-2.0
sluice_fuzzer(json SOURCES fuzz_json.c LINKS sluice::base CORPUS corpus/json)
