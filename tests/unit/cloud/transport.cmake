# transport.cmake - the transport's tests; included by the folder's CMakeLists.txt
# SPDX-License-Identifier: Apache-2.0

# Not linked with seal.c: fake_envelope.c stands in for its accessors.
sluice_test(transport
  SOURCES test_transport.c tls_server.c fake_envelope.c
  LINKS sluice::cloud sluice::test_support sluice::platform sluice::base
  TIMEOUT 180)
