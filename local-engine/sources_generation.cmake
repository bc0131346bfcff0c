# sources_generation.cmake - choosing tokens: constraints, stop strings (sampler.c is listed with the numbers)
#
# SPDX-License-Identifier: Apache-2.0
set(SLUICE_ENGINE_GENERATION_SOURCES
  constraint.c
  constraint_regex.c
  constraint_schema.c
  constraint_vocab.c
  stop_strings.c)
