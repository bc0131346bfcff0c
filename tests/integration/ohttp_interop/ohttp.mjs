// ohttp.mjs - oblivious HTTP (RFC 9458) and its chunked form, on either of two HPKE libraries; for tests alone
//
// One suite: X25519, HKDF-SHA256, ChaCha20-Poly1305.  Response keys come from Node's crypto.
//
// SPDX-License-Identifier: Apache-2.0
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { CipherSuite, HkdfSha256 } from '@hpke/core';
import { Chacha20Poly1305 } from '@hpke/chacha20poly1305';
import { DhkemX25519HkdfSha256 } from '@hpke/dhkem-x25519';
import * as panva from 'hpke';
import * as noble from '@panva/hpke-noble';

const KEM = 0x0020, KDF = 0x0001, AEAD = 0x0003, ENC_BYTES = 32, NONCE_BYTES = 32, TAG_BYTES = 16;
const NOTHING = Buffer.alloc(0), FINAL = Buffer.from('final');

const exact = (b) => b.buffer.slice(b.byteOffset, b.byteOffset + b.length); // an ArrayBuffer of just these bytes

// ---- two HPKE libraries behind one face: {seal, open, exportSecret}(bytes) -> Buffer

const hpkeJs = () => new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Chacha20Poly1305() });
const hpkeJsContext = (c) => ({
  seal: async (aad, plain) => Buffer.from(await c.seal(exact(plain), exact(aad))),
  open: async (aad, sealed) => Buffer.from(await c.open(exact(sealed), exact(aad))),
  exportSecret: async (label, n) => Buffer.from(await c.export(exact(label), n)),
});
const panvaSuite = () => new panva.CipherSuite(panva.KEM_DHKEM_X25519_HKDF_SHA256, panva.KDF_HKDF_SHA256, noble.AEAD_ChaCha20Poly1305);
const panvaContext = (c) => ({
  seal: async (aad, plain) => Buffer.from(await c.Seal(plain, aad)),
  open: async (aad, sealed) => Buffer.from(await c.Open(sealed, aad)),
  exportSecret: async (label, n) => Buffer.from(await c.Export(label, n)),
});

export const libraries = {
  'hpke-js': {
    async generate() {
      const suite = hpkeJs(), pair = await suite.kem.generateKeyPair();
      return { secret: pair.privateKey, pub: Buffer.from(await suite.kem.serializePublicKey(pair.publicKey)) };
    },
    async sender(pub, info) {
      const suite = hpkeJs();
      const c = await suite.createSenderContext({ recipientPublicKey: await suite.kem.importKey('raw', exact(pub), true), info: exact(info) });
      return { enc: Buffer.from(c.enc), context: hpkeJsContext(c) };
    },
    async recipient(secret, enc, info) {
      return hpkeJsContext(await hpkeJs().createRecipientContext({ recipientKey: secret, enc: exact(enc), info: exact(info) }));
    },
  },
  panva: {
    async generate() {
      const suite = panvaSuite(), pair = await suite.GenerateKeyPair(true);
      return { secret: pair.privateKey, pub: Buffer.from(await suite.SerializePublicKey(pair.publicKey)) };
    },
    async sender(pub, info) {
      const suite = panvaSuite(), r = await suite.SetupSender(await suite.DeserializePublicKey(pub), { info });
      return { enc: Buffer.from(r.encapsulatedSecret ?? r.encapsulated_secret), context: panvaContext(r.ctx ?? r) };
    },
    async recipient(secret, enc, info) {
      return panvaContext(await panvaSuite().SetupRecipient(secret, enc, { info }));
    },
  },
};

// ---- RFC 9458

const u16 = (n) => Buffer.from([n >> 8, n & 255]);
const headerOf = (keyId) => Buffer.concat([Buffer.from([keyId]), u16(KEM), u16(KDF), u16(AEAD)]);
const label = (isChunked, what) => Buffer.from(`message/bhttp ${isChunked ? 'chunked ' : ''}${what}`);
const infoOf = (isChunked, header) => Buffer.concat([label(isChunked, 'request'), Buffer.from([0]), header]);

export function keyList(keyId, pub) { // a list: an unknown KEM first, which a client has to skip, then ours with two suites
  const stranger = Buffer.concat([Buffer.from([9]), u16(0xfe00), Buffer.from('whatever')]);
  const ours = Buffer.concat([Buffer.from([keyId]), u16(KEM), pub, u16(8), u16(KDF), u16(1), u16(KDF), u16(AEAD)]);
  return Buffer.concat([u16(stranger.length), stranger, u16(ours.length), ours]);
}

export function readKeyList(list) { // exactly one configuration with our suite
  const kem = list.readUInt16BE(3), suites = list.subarray(39);
  if (list.readUInt16BE(0) !== list.length - 2 || kem !== KEM || suites.length !== 4) throw new Error('not one X25519 configuration');
  if (suites.readUInt16BE(0) !== KDF || suites.readUInt16BE(2) !== AEAD) throw new Error('another suite');
  return { keyId: list[2], pub: list.subarray(5, 37) };
}

const hmac = (key, ...parts) => parts.reduce((h, p) => h.update(p), createHmac('sha256', key)).digest();
const expand = (prk, info, n) => hmac(prk, Buffer.from(info), Buffer.from([1])).subarray(0, n);

async function responseKeys(exchange, nonce) {
  const secret = await exchange.context.exportSecret(label(exchange.isChunked, 'response'), NONCE_BYTES);
  const prk = hmac(Buffer.concat([exchange.enc, nonce]), secret);
  return { key: expand(prk, 'key', 32), nonce: expand(prk, 'nonce', 12), count: 0 };
}

function nextNonce(keys) {
  const nonce = Buffer.from(keys.nonce);
  nonce.writeUInt32BE((nonce.readUInt32BE(8) ^ keys.count++) >>> 0, 8);
  return nonce;
}
function sealWith(keys, aad, plain) {
  const c = createCipheriv('chacha20-poly1305', keys.key, nextNonce(keys), { authTagLength: TAG_BYTES });
  c.setAAD(aad, { plaintextLength: plain.length });
  return Buffer.concat([c.update(plain), c.final(), c.getAuthTag()]);
}
function openWith(keys, aad, sealed) {
  const n = sealed.length - TAG_BYTES, d = createDecipheriv('chacha20-poly1305', keys.key, nextNonce(keys), { authTagLength: TAG_BYTES });
  d.setAAD(aad, { plaintextLength: n });
  d.setAuthTag(sealed.subarray(n));
  return Buffer.concat([d.update(sealed.subarray(0, n)), d.final()]);
}

// ---- chunks

export function varint(n) {
  if (n < 64) return Buffer.from([n]);
  if (n < 16384) return u16(0x4000 | n);
  const b = Buffer.alloc(4);
  b.writeUInt32BE((0x80000000 | n) >>> 0);
  return b;
}
export function readVarint(b, at) {
  const length = 1 << (b[at] >> 6);
  let value = b[at] & 63;
  for (let i = 1; i < length; i++) value = value * 256 + b[at + i];
  return { value, next: at + length };
}
async function sealChunks(seal, pieces) { // the last piece is the final chunk
  const out = [];
  for (const [i, piece] of pieces.entries()) {
    const isFinal = i === pieces.length - 1, sealed = await seal(isFinal ? FINAL : NOTHING, piece);
    out.push(varint(isFinal ? 0 : sealed.length), sealed);
  }
  return Buffer.concat(out);
}
async function openChunks(open, bytes) {
  const out = [];
  for (let at = 0; ;) {
    const { value, next } = readVarint(bytes, at);
    if (value === 0) {
      out.push(await open(FINAL, bytes.subarray(next)));
      return out;
    }
    out.push(await open(NOTHING, bytes.subarray(next, next + value)));
    at = next + value;
  }
}

// ---- both sides.  `pieces` is an array; a plain message has one.

export async function encapsulate(library, { keyId, pub }, isChunked, pieces) {
  const header = headerOf(keyId), { enc, context } = await library.sender(pub, infoOf(isChunked, header));
  const exchange = { enc, context, isChunked };
  const sealed = isChunked ? await sealChunks(context.seal, pieces) : await context.seal(NOTHING, pieces[0]);
  return { exchange, body: Buffer.concat([header, enc, sealed]) };
}

export async function decapsulate(library, { keyId, secret }, isChunked, body) {
  const header = body.subarray(0, 7), enc = body.subarray(7, 7 + ENC_BYTES), sealed = body.subarray(7 + ENC_BYTES);
  if (!header.equals(headerOf(keyId))) throw new Error('another key or suite');
  const context = await library.recipient(secret, enc, infoOf(isChunked, header));
  const pieces = isChunked ? await openChunks(context.open, sealed) : [await context.open(NOTHING, sealed)];
  return { exchange: { enc, context, isChunked }, pieces };
}

export async function sealResponse(exchange, pieces) {
  const nonce = randomBytes(NONCE_BYTES), keys = await responseKeys(exchange, nonce);
  const sealed = exchange.isChunked ? await sealChunks((aad, p) => sealWith(keys, aad, p), pieces) : sealWith(keys, NOTHING, pieces[0]);
  return Buffer.concat([nonce, sealed]);
}

export async function openResponse(exchange, body) {
  const keys = await responseKeys(exchange, body.subarray(0, NONCE_BYTES)), sealed = body.subarray(NONCE_BYTES);
  return exchange.isChunked ? openChunks((aad, s) => openWith(keys, aad, s), sealed) : [openWith(keys, NOTHING, sealed)];
}
