/* vectors.c - read published test vectors
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "sdk/crypto/crypto.h"
#include "tests/support/cm.h"
#include "tests/unit/cloud/vectors.h"

enum { POOL_BYTES = 1 << 20, FILE_BYTES_MAX = 1 << 20 };

static uint8_t pool[POOL_BYTES];
static size_t pool_used;

sluice_json_doc *vectors_open(const char *name)
{
    const char *root = getenv("SLUICE_SOURCE_DIR");
    sluice_json_doc *doc = NULL;
    sluice_error err = SLUICE_ERROR_INIT;
    char path[1024];
    uint8_t *text = malloc(FILE_BYTES_MAX);
    size_t len;
    FILE *f;

    snprintf(path, sizeof path, "%s/tests/data/crypto-vectors/%s", root != NULL ? root : ".", name);
    f = fopen(path, "rb");
    if (f == NULL || text == NULL)
        fail_msg("cannot read %s", path);
    len = fread(text, 1, FILE_BYTES_MAX, f);
    fclose(f);
    if (sluice_json_parse(&doc, sluice_span_of(text, len), NULL, NULL, &err) != SLUICE_OK)
        fail_msg("%s: %s", path, err.message);
    free(text);
    return doc;
}

sluice_span vectors_unhex(const char *hex)
{
    const size_t len = strlen(hex) / 2;
    uint8_t *bytes = pool + pool_used;

    assert_true(len <= POOL_BYTES - pool_used);
    assert_true(sluice_unhex(bytes, len, hex));
    pool_used += len;
    return sluice_span_of(bytes, len);
}

sluice_span vectors_bytes(const sluice_json *object, const char *key)
{
    const sluice_json *member = sluice_json_get(object, key);

    if (member == NULL || member->kind != SLUICE_JSON_STRING)
        fail_msg("the vector has no \"%s\"", key);
    return vectors_unhex(member->string);
}

int vectors_int(const sluice_json *object, const char *key)
{
    const sluice_json *member = sluice_json_get(object, key);

    if (member == NULL || member->kind != SLUICE_JSON_NUMBER)
        fail_msg("the vector has no number \"%s\"", key);
    return (int)member->number;
}
