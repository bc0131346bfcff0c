/* session.c - the KV cache and its tokens in a sealed file, and back.
 *
 *     prefix, in the clear, 88 bytes, little-endian; additional data of every chunk
 *        0  8  "SLUICEKV"
 *        8  4  format version, 1
 *       12  4  bytes that sealing adds to a chunk
 *       16  4  tokens
 *       20 16  cache: type, layers, key/value heads, head dimension
 *       36 32  model hash
 *       68 16  random id of the file
 *       84  4  zero
 *     chunks of 65,536 bytes and their sealing, the last one shorter: tokens (4 bytes each), then for each layer, head and 128 positions
 *     what sluice_kv_cache_read_piece() gives.  Additional data: prefix, number of the chunk (8 bytes), 1 for the last (1 byte).
 *
 * The prefix says how long the file is, so that a missing end is found before anything is read.  The random id keeps chunks of two files apart that were
 * sealed with one key.  The cache's bytes are as the processor that made them rounded, so a session belongs to a machine as well as to a model.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>

#include "local-engine/engine_impl.h"

enum {
    VERSION = 1,
    PREFIX_BYTES = 88, AAD_BYTES = PREFIX_BYTES + 9, ID_BYTES = 16,
    CHUNK_BYTES = 65536,
    PIECE_POSITIONS = 128,          /* a multiple of SLUICE_KEY_BLOCK */
    MIN_OVERHEAD = 16, MAX_OVERHEAD = 256,
    PATH_BYTES = 4096
};

static const uint8_t magic[8] = { 'S', 'L', 'U', 'I', 'C', 'E', 'K', 'V' };

/* Bytes on their way between cache and file, both ways. */
typedef struct stream {
    sluice_engine *e;
    const sluice_engine_sealer *sealer;
    sluice_file *file;
    uint8_t prefix[PREFIX_BYTES];
    uint64_t total, done;           /* plain bytes of all chunks, and those that went through whole chunks */
    uint64_t n_chunks;              /* that went through */
    uint64_t offset;                /* in the file, when reading */
    uint8_t *memory;                /* one block: plain, sealed, piece */
    size_t memory_bytes;
    uint8_t *plain, *sealed, *piece;
    size_t at, len;                 /* in plain: next byte; bytes that are there, when reading */
} stream;

static void put_u32(uint8_t *out, uint32_t x)
{
    for (size_t i = 0; i < 4; i++)
        out[i] = (uint8_t)(x >> (8 * i));
}

static uint32_t get_u32(const uint8_t *in)
{
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static uint64_t stream_bytes(const sluice_kv_cache *kv, uint32_t n_tokens)
{
    const uint32_t whole = n_tokens / PIECE_POSITIONS, rest = n_tokens % PIECE_POSITIONS;
    const uint64_t head = (uint64_t)whole * sluice_kv_cache_piece_bytes(kv, PIECE_POSITIONS) + (rest > 0 ? sluice_kv_cache_piece_bytes(kv, rest) : 0);

    return (uint64_t)n_tokens * sizeof(int32_t) + head * kv->shape.n_layer * kv->shape.n_head_kv;
}

static sluice_status open_stream(stream *s, sluice_engine *e, const sluice_engine_sealer *sealer, sluice_error *err)
{
    const size_t piece = sluice_kv_cache_piece_bytes(&e->kv, PIECE_POSITIONS);

    memset(s, 0, sizeof *s);
    s->e = e;
    s->sealer = sealer;
    if (sealer == NULL || sealer->seal == NULL || sealer->open == NULL || sealer->overhead < MIN_OVERHEAD || sealer->overhead > MAX_OVERHEAD)
        return sluice_error_set(err, SLUICE_ERR_ARGUMENT, "session: a conversation is written only with authenticated encryption, which adds %d to %d bytes",
                                MIN_OVERHEAD, MAX_OVERHEAD);
    s->memory_bytes = 2 * (size_t)CHUNK_BYTES + sealer->overhead + piece;
    s->memory = sluice_alloc(e->al, s->memory_bytes);
    if (s->memory == NULL)
        return sluice_error_set(err, SLUICE_ERR_NO_MEMORY, "session: %zu bytes for its file", s->memory_bytes);
    s->piece = s->memory; /* the only one that wants to be aligned */
    s->plain = s->memory + piece;
    s->sealed = s->plain + CHUNK_BYTES;
    return SLUICE_OK;
}

static void close_stream(stream *s)
{
    if (s->memory != NULL)
        sluice_free_wiped(s->e->al, s->memory, s->memory_bytes);
    s->memory = NULL;
}

/* The additional data of the next chunk, of n plain bytes. */
static sluice_span describe_chunk(const stream *s, size_t n, uint8_t aad[AAD_BYTES])
{
    memcpy(aad, s->prefix, PREFIX_BYTES);
    put_u32(aad + PREFIX_BYTES, (uint32_t)s->n_chunks);
    put_u32(aad + PREFIX_BYTES + 4, (uint32_t)(s->n_chunks >> 32));
    aad[AAD_BYTES - 1] = s->done + n == s->total;
    return sluice_span_of(aad, AAD_BYTES);
}

/* ---- writing */

static sluice_status write_chunk(stream *s, sluice_error *err)
{
    const sluice_platform *p = &s->e->platform;
    uint8_t aad[AAD_BYTES];
    sluice_status st = s->sealer->seal(s->sealer->user, describe_chunk(s, s->at, aad), sluice_span_of(s->plain, s->at), s->sealed, err);

    if (st == SLUICE_OK)
        st = p->file_write(p->user, s->file, s->sealed, s->at + s->sealer->overhead, err);
    s->done += s->at;
    s->n_chunks++;
    s->at = 0;
    return st;
}

static sluice_status put(stream *s, const uint8_t *bytes, size_t n, sluice_error *err)
{
    sluice_status st = SLUICE_OK;

    while (st == SLUICE_OK && n > 0) {
        const size_t room = CHUNK_BYTES - s->at, take = n < room ? n : room;

        memcpy(s->plain + s->at, bytes, take);
        s->at += take;
        bytes += take;
        n -= take;
        if (s->at == CHUNK_BYTES || s->done + s->at == s->total)
            st = write_chunk(s, err);
    }
    return st;
}

static sluice_status write_prefix(stream *s, sluice_error *err)
{
    const sluice_engine *e = s->e;
    const sluice_kv_shape *shape = &e->kv.shape;
    const uint32_t words[] = { VERSION, (uint32_t)s->sealer->overhead, e->kv.n_used, shape->type, shape->n_layer, shape->n_head_kv, shape->head_dim };
    sluice_status st;

    memcpy(s->prefix, magic, sizeof magic);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        put_u32(s->prefix + 8 + 4 * i, words[i]);
    memcpy(s->prefix + 36, e->info.model_hash, sizeof e->info.model_hash);
    st = sluice_random(&e->platform, s->prefix + 68, ID_BYTES, err);
    if (st != SLUICE_OK)
        return st;
    s->total = stream_bytes(&e->kv, e->kv.n_used);
    return e->platform.file_write(e->platform.user, s->file, s->prefix, PREFIX_BYTES, err);
}

static sluice_status write_tokens(stream *s, sluice_error *err)
{
    sluice_status st = SLUICE_OK;
    uint8_t bytes[4];

    for (uint32_t i = 0; st == SLUICE_OK && i < s->e->kv.n_used; i++) {
        put_u32(bytes, (uint32_t)s->e->history[i]);
        st = put(s, bytes, sizeof bytes, err);
    }
    return st;
}

typedef sluice_status (*piece_fn)(stream *s, uint32_t layer, uint32_t head, uint32_t first, uint32_t n, sluice_error *err);

static sluice_status for_each_piece(stream *s, uint32_t n_tokens, piece_fn fn, sluice_error *err)
{
    const sluice_kv_shape *shape = &s->e->kv.shape;
    sluice_status st = SLUICE_OK;

    for (uint32_t layer = 0; layer < shape->n_layer; layer++)
        for (uint32_t head = 0; head < shape->n_head_kv; head++)
            for (uint32_t first = 0; st == SLUICE_OK && first < n_tokens; first += PIECE_POSITIONS)
                st = fn(s, layer, head, first, n_tokens - first < PIECE_POSITIONS ? n_tokens - first : PIECE_POSITIONS, err);
    return st;
}

static sluice_status write_piece(stream *s, uint32_t layer, uint32_t head, uint32_t first, uint32_t n, sluice_error *err)
{
    sluice_kv_cache_read_piece(&s->e->kv, layer, head, first, n, s->piece);
    return put(s, s->piece, sluice_kv_cache_piece_bytes(&s->e->kv, n), err);
}

sluice_status sluice_engine_save_session(sluice_engine *e, const char *path, const sluice_engine_sealer *sealer, sluice_error *err)
{
    const sluice_platform *p = &e->platform;
    char temporary[PATH_BYTES];
    sluice_status st;
    stream s;

    if (e->kv.n_used == 0)
        return sluice_error_set(err, SLUICE_ERR_STATE, "session: there is none to save");
    const int n = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof temporary)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "session: the path is longer than %d bytes", PATH_BYTES);
    st = open_stream(&s, e, sealer, err);
    if (st == SLUICE_OK)
        st = p->file_open(p->user, &s.file, temporary, SLUICE_FILE_TRUNCATE, err);
    if (st != SLUICE_OK) {
        close_stream(&s);
        return st;
    }
    st = write_prefix(&s, err);
    if (st == SLUICE_OK)
        st = write_tokens(&s, err);
    if (st == SLUICE_OK)
        st = for_each_piece(&s, e->kv.n_used, write_piece, err);
    if (st == SLUICE_OK)
        st = p->file_sync(p->user, s.file, err); /* before the rename: else a crash may leave the new name on half a file */
    p->file_close(p->user, s.file);
    if (st == SLUICE_OK)
        st = p->file_rename(p->user, temporary, path, err);
    if (st != SLUICE_OK)
        (void)p->file_remove(p->user, temporary, NULL);
    close_stream(&s);
    return st;
}

/* ---- reading */

static sluice_status read_exactly(stream *s, uint8_t *out, size_t n, sluice_error *err)
{
    const sluice_platform *p = &s->e->platform;

    while (n > 0) {
        size_t got = 0;
        const sluice_status st = p->file_read(p->user, s->file, s->offset, out, n, &got, err);

        if (st != SLUICE_OK)
            return st;
        if (got == 0)
            return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "session: the file ends at byte %llu", (unsigned long long)s->offset);
        s->offset += got;
        out += got;
        n -= got;
    }
    return SLUICE_OK;
}

static sluice_status read_chunk(stream *s, sluice_error *err)
{
    const uint64_t left = s->total - s->done;
    const size_t n = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
    uint8_t aad[AAD_BYTES];
    sluice_status st = read_exactly(s, s->sealed, n + s->sealer->overhead, err);

    if (st == SLUICE_OK)
        st = s->sealer->open(s->sealer->user, describe_chunk(s, n, aad), sluice_span_of(s->sealed, n + s->sealer->overhead), s->plain, err);
    s->done += n;
    s->n_chunks++;
    s->at = 0;
    s->len = n;
    return st;
}

static sluice_status get(stream *s, uint8_t *out, size_t n, sluice_error *err)
{
    while (n > 0) {
        const size_t there = s->len - s->at, take = n < there ? n : there;
        sluice_status st;

        memcpy(out, s->plain + s->at, take);
        s->at += take;
        out += take;
        n -= take;
        if (n > 0 && (st = read_chunk(s, err)) != SLUICE_OK)
            return st;
    }
    return SLUICE_OK;
}

/* Is this a session, of this model, that fits?  And is the file as long as it says? */
static sluice_status read_prefix(stream *s, uint32_t *n_tokens, sluice_error *err)
{
    const sluice_engine *e = s->e;
    const sluice_kv_shape *shape = &e->kv.shape;
    const uint32_t words[] = { shape->type, shape->n_layer, shape->n_head_kv, shape->head_dim };
    uint64_t bytes, n_chunks, expected;
    sluice_status st = e->platform.file_size(e->platform.user, s->file, &bytes, err);

    if (st == SLUICE_OK && bytes < PREFIX_BYTES)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "session: %llu bytes are none", (unsigned long long)bytes);
    if (st == SLUICE_OK)
        st = read_exactly(s, s->prefix, PREFIX_BYTES, err);
    if (st != SLUICE_OK)
        return st;
    if (memcmp(s->prefix, magic, sizeof magic) != 0)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "session: the file is none");
    if (get_u32(s->prefix + 8) != VERSION)
        return sluice_error_set(err, SLUICE_ERR_UNSUPPORTED, "session: format version %u; this build reads %d", get_u32(s->prefix + 8), VERSION);
    if (memcmp(s->prefix + 36, e->info.model_hash, sizeof e->info.model_hash) != 0)
        return sluice_error_set(err, SLUICE_ERR_STATE, "session: it is of another model");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (get_u32(s->prefix + 20 + 4 * i) != words[i])
            return sluice_error_set(err, SLUICE_ERR_STATE, "session: its cache is of another type or shape");
    if (get_u32(s->prefix + 12) != s->sealer->overhead)
        return sluice_error_set(err, SLUICE_ERR_INTEGRITY, "session: it was sealed in another way");
    *n_tokens = get_u32(s->prefix + 16);
    if (*n_tokens == 0)
        return sluice_error_set(err, SLUICE_ERR_FORMAT, "session: it has no tokens");
    if (*n_tokens > e->context)
        return sluice_error_set(err, SLUICE_ERR_LIMIT, "session: %u tokens do not fit the context of %u", *n_tokens, e->context);
    s->total = stream_bytes(&e->kv, *n_tokens);
    n_chunks = (s->total + CHUNK_BYTES - 1) / CHUNK_BYTES;
    expected = PREFIX_BYTES + s->total + n_chunks * s->sealer->overhead;
    return bytes == expected ? SLUICE_OK
                             : sluice_error_set(err, SLUICE_ERR_INTEGRITY, "session: the file has %llu bytes, not %llu", (unsigned long long)bytes,
                                                (unsigned long long)expected);
}

static sluice_status read_tokens(stream *s, uint32_t n_tokens, sluice_error *err)
{
    sluice_engine *e = s->e;
    uint8_t bytes[4];

    for (uint32_t i = 0; i < n_tokens; i++) {
        const sluice_status st = get(s, bytes, sizeof bytes, err);

        if (st != SLUICE_OK)
            return st;
        if (get_u32(bytes) >= e->model.n_vocab)
            return sluice_error_set(err, SLUICE_ERR_FORMAT, "session: token %u is outside the vocabulary of %u", i, e->model.n_vocab);
        e->history[i] = (int32_t)get_u32(bytes);
    }
    return SLUICE_OK;
}

static sluice_status read_piece(stream *s, uint32_t layer, uint32_t head, uint32_t first, uint32_t n, sluice_error *err)
{
    const sluice_status st = get(s, s->piece, sluice_kv_cache_piece_bytes(&s->e->kv, n), err);

    if (st == SLUICE_OK)
        sluice_kv_cache_write_piece(&s->e->kv, layer, head, first, n, s->piece);
    return st;
}

sluice_status sluice_engine_restore_session(sluice_engine *e, const char *path, const sluice_engine_sealer *sealer, sluice_error *err)
{
    const sluice_platform *p = &e->platform;
    uint32_t n_tokens = 0;
    sluice_status st;
    stream s;

    sluice_engine_reset(e);
    st = open_stream(&s, e, sealer, err);
    if (st == SLUICE_OK)
        st = p->file_open(p->user, &s.file, path, SLUICE_FILE_READ, err);
    if (st != SLUICE_OK) {
        close_stream(&s);
        return st;
    }
    st = read_prefix(&s, &n_tokens, err);
    if (st == SLUICE_OK)
        st = read_tokens(&s, n_tokens, err);
    if (st == SLUICE_OK)
        st = for_each_piece(&s, n_tokens, read_piece, err);
    p->file_close(p->user, s.file);
    close_stream(&s);
    if (st != SLUICE_OK) {
        if (err != NULL && err->where[0] == '\0')
            sluice_error_where(err, path);
        sluice_engine_reset(e);
        return st;
    }
    e->kv.n_used = n_tokens;
    return SLUICE_OK;
}
