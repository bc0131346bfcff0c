// interop.mjs - run the library's client and gateway against independent implementations
//
//   node interop.mjs DRIVER
//
// Prints a line per check; exit status 1 when one fails.
//
// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { BHttpDecoder, BHttpEncoder } from 'bhttp-js';
import { decapsulate, encapsulate, keyList, libraries, openResponse, readKeyList, sealResponse, varint } from './ohttp.mjs';

const driver = process.argv[2];
let n_failed = 0, n_passed = 0;

async function check(name, run) {
  try {
    await run();
    n_passed++;
    console.log(`ok   ${name}`);
  } catch (e) {
    n_failed++;
    console.log(`FAIL ${name}: ${e.stack ?? e}`);
  }
}
function same(got, want, what) {
  if (got !== want) throw new Error(`${what}: got ${JSON.stringify(got)}, wanted ${JSON.stringify(want)}`);
}

// ---- the driver: a line out, a line in

class Driver {
  constructor(...args) {
    this.child = spawn(driver, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.ended = new Promise((resolve) => this.child.on('close', resolve));
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }
  async read() {
    const { value, done } = await this.lines.next();
    if (done) throw new Error('the driver has ended');
    const [word, ...rest] = value.split(' ');
    return { word, rest };
  }
  write(...words) { this.child.stdin.write(words.join(' ') + '\n'); }
  async end() {
    this.child.stdin.end();
    for (;;) if ((await this.lines.next()).done) break;
    return this.ended;
  }
}
const hex = (b) => Buffer.from(b).toString('hex');
const unhex = (s) => Buffer.from(s ?? '', 'hex');
const type = (isChunked, what) => `message/ohttp-${isChunked ? 'chunked-' : ''}${what}`;

// ---- binary HTTP that bhttp-js cannot write: an indeterminate-length response, in pieces

const prefixed = (s) => Buffer.concat([varint(Buffer.byteLength(s)), Buffer.from(s)]);
function streamedResponse(contentType, pieces) {
  const head = Buffer.concat([varint(3), varint(200), prefixed('content-type'), prefixed(contentType), Buffer.from([0])]);
  return [head, ...pieces.map(prefixed), Buffer.from([0, 0])];
}

// ---- our client, their gateway

async function ourClient(library, isChunked, bend) {
  const pair = await library.generate(), key = { keyId: 5, ...pair };
  const client = new Driver('client', isChunked ? 'chunked' : 'plain', hex(keyList(5, pair.pub)));
  const { word, rest } = await client.read();
  same(word, 'request', 'first line');
  same(rest[0], type(isChunked, 'req'), 'content type');
  const { exchange, pieces } = await decapsulate(library, key, isChunked, unhex(rest[1]));
  const inner = Buffer.concat(pieces), request = new BHttpDecoder().decodeRequest(inner);
  same(inner.length % 512, 0, 'size class');
  same(request.method, 'POST', 'method');
  same(request.url, 'https://api.example/v1/chat/completions', 'URL');
  same(request.headers.get('date'), 'Fri, 21 Nov 2025 01:53:20 GMT', 'date');
  same(request.headers.get('content-type'), 'application/json', 'inner content type');
  const body = await request.json();
  same(body.messages[0].content, 'Gr\u00fc\u00dfe \u{1f600}', 'message');
  same(body.stream, isChunked, 'stream');
  same(body.store, false, 'store');
  const events = ['data: {"n":1}\n\n', `data: ${'x'.repeat(20000)}\n\n`, 'data: \u20ac\n\n'];
  const response = isChunked
    ? streamedResponse('text/event-stream', events)
    : [Buffer.from(await new BHttpEncoder().encodeResponse(new Response(events.join(''), { status: 200, headers: { 'content-type': 'application/json' } })))];
  const sealed = bend(await sealResponse(exchange, response));
  client.write(type(isChunked, 'res'), hex(sealed));
  const answer = await client.read();
  await client.end();
  return { answer, events };
}

// ---- their client, our gateway

async function theirClient(library, isChunked, bend) {
  const gateway = new Driver('gateway', isChunked ? 'chunked' : 'plain');
  const keys = await gateway.read();
  same(keys.word, 'keys', 'first line');
  const request = new Request('https://api.example/v1/models', { method: 'POST', headers: { 'content-type': 'text/plain', 'x-a': 'b c' }, body: 'Hello '.repeat(5000) });
  const inner = Buffer.from(await new BHttpEncoder().encodeRequest(request));
  const pieces = isChunked ? [inner.subarray(0, 1), inner.subarray(1, 16000), inner.subarray(16000)] : [inner];
  const { exchange, body } = await encapsulate(library, readKeyList(unhex(keys.rest[0])), isChunked, pieces);
  gateway.write(type(isChunked, 'req'), hex(bend(body)));
  const got = await gateway.read();
  if (got.word !== 'request') {
    await gateway.end();
    return { refused: got.rest[0] };
  }
  same(unhex(got.rest[0]).toString(), 'POST https api.example /v1/models', 'control data');
  const fields = unhex(got.rest[1]).toString();
  if (!fields.includes('content-type: text/plain\n') || !fields.includes('x-a: b c\n')) throw new Error(`fields: ${fields}`);
  same(unhex(got.rest[2]).toString(), 'Hello '.repeat(5000), 'content');
  const answer = await gateway.read();
  same(answer.word, 'response', 'second line');
  same(answer.rest[0], type(isChunked, 'res'), 'content type');
  const opened = Buffer.concat(await openResponse(exchange, unhex(answer.rest[1])));
  await gateway.end();
  const response = new BHttpDecoder().decodeResponse(opened);
  same(response.status, 201, 'status');
  same(response.headers.get('content-type'), 'text/plain', 'inner content type');
  same(await response.text(), 'one two three' + 'z'.repeat(30000), 'answer');
  return {};
}

const asIs = (b) => b;
const flipped = (b) => { const c = Buffer.from(b); c[c.length - 20] ^= 1; return c; };
const cut = (b) => b.subarray(0, b.length - 19); // into the final chunk, or into the tag

for (const [name, library] of Object.entries(libraries))
  for (const isChunked of [false, true]) {
    const form = isChunked ? 'chunked' : 'plain';
    await check(`${form}: our client, ${name} gateway`, async () => {
      const { answer, events } = await ourClient(library, isChunked, asIs);
      same(answer.word, 'ok', 'outcome');
      same(unhex(answer.rest[0]).toString(), `200|content-type=${isChunked ? 'text/event-stream' : 'application/json'}|${events.join('')}|end`, 'answer');
    });
    for (const [how, bend] of [['touched', flipped], ['cut', cut]])
      await check(`${form}: our client refuses an answer that was ${how} (${name})`, async () => {
        const { answer } = await ourClient(library, isChunked, bend);
        same(answer.word, 'refused', 'outcome');
      });
    await check(`${form}: ${name} client, our gateway`, async () => same((await theirClient(library, isChunked, asIs)).refused, undefined, 'refused'));
    for (const [how, bend] of [['touched', flipped], ['cut', cut]])
      await check(`${form}: our gateway refuses a request that was ${how} (${name})`, async () => {
        const { refused } = await theirClient(library, isChunked, bend);
        if (!['SLUICE_ERR_INTEGRITY', 'SLUICE_ERR_TRUNCATED'].includes(refused)) throw new Error(`outcome ${refused}`);
      });
  }
console.log(`${n_passed} passed, ${n_failed} failed`);
process.exit(n_failed > 0 ? 1 : 0);
