/* data_class.h - which classes of personal data a text contains.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef SLUICE_POLICIES_DATA_CLASS_H
#define SLUICE_POLICIES_DATA_CLASS_H

#include "sdk/base/base.h"
#include "sluice/sluice.h"

/* Classes found in a UTF-8 text; SLUICE_CLASS_PROMPT is always set.  Structured classes are checked with their check digits (Luhn, mod 97).
 * Linear in text.len, allocates nothing. */
sluice_data_classes sluice_data_class_find(sluice_span text);

/* Does the text hold something that is a key of a provider by its form (sk-…, AIza…, AKIA…, a JSON Web Token)?  For files that must hold none. */
bool sluice_data_class_has_key(sluice_span text);

/* One class by its name ("email"); 0 when unknown. */
sluice_data_classes sluice_data_class_parse(sluice_span name);

/* "prompt, email" into out. */
void sluice_data_class_list(sluice_data_classes set, char *out, size_t cap);

#endif
