# transport.cmake - the transport's tests; included by the folder's CMakeLists.txt
# SPDX-License-Identifier: Apache-2.0
sluice_test(transport
  SOURCES test_transport.c tls_server.c gate.c
  LINKS sluice::cloud sluice::test_support
  LABELS unit cloud threads
  TIMEOUT 180)
