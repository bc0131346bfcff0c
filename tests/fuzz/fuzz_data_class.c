/* fuzz_data_class.c - what stands alone in a text is found whatever stands around it, and nobody reads beyond the end.
 *
 * The input is a text.  A second copy with a marked e-mail address, card and key after it, on lines of their own, must have
 * these classes and all that the text had.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "policies/data_class.h"

static const char tail[] = "\n\njane@mail.example\n\n4111111111111111\n\nsk-abcdEFGH1234567890abcd\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const sluice_data_classes in_tail = SLUICE_CLASS_EMAIL | SLUICE_CLASS_PAYMENT_CARD | SLUICE_CLASS_SECRET;
    sluice_data_classes alone = sluice_data_class_find(sluice_span_of(data, size)), both;
    uint8_t *text = malloc(size + sizeof tail);

    if (text == NULL)
        return 0;
    if (size > 0)
        memcpy(text, data, size);
    memcpy(text + size, tail, sizeof tail);
    both = sluice_data_class_find(sluice_span_of(text, size + sizeof tail - 1));
    if ((alone & ~(sluice_data_classes)SLUICE_CLASS_ALL) != 0 || (alone & SLUICE_CLASS_PROMPT) == 0 || (both & in_tail) != in_tail ||
        (alone & ~both) != 0)
        abort();
    (void)sluice_data_class_parse(sluice_span_of(data, size));
    free(text);
    return 0;
}
