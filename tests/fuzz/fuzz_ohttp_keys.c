/* fuzz_ohttp_keys.c - a key configuration list is taken whole or not at all
 *
 * Whatever is selected from a list must be selected from that list followed by another good configuration too; followed by half of one,
 * nothing may be.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "cloud-adapters/oblivious/ohttp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const sluice_ohttp_key more = { 200, { 1, 2, 3 }, &sluice_hpke_chacha20 };
    sluice_ohttp_key first, again;
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_buf list;
    const sluice_status st = sluice_ohttp_key_select(&first, sluice_span_of(data, size), &sluice_hpke_chacha20, &err);

    must((st == SLUICE_OK) == (first.aead != NULL) && st == err.status);
    must(st == SLUICE_OK || st == SLUICE_ERR_FORMAT || st == SLUICE_ERR_UNSUPPORTED);
    if (st == SLUICE_ERR_FORMAT)
        return 0;
    sluice_buf_init(&list, NULL, SIZE_MAX);
    must(sluice_buf_append(&list, data, size) && sluice_ohttp_key_write(&list, &more));
    if (sluice_ohttp_key_select(&again, sluice_buf_span(&list), &sluice_hpke_chacha20, NULL) == SLUICE_OK) /* else there are too many */
        must(again.key_id == (st == SLUICE_OK ? first.key_id : more.key_id));
    list.len--;
    must(sluice_ohttp_key_select(&again, sluice_buf_span(&list), &sluice_hpke_chacha20, NULL) == SLUICE_ERR_FORMAT && again.aead == NULL);
    sluice_buf_deinit(&list);
    return 0;
}
