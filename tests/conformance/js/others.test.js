import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI, { toFile } from "openai";

import { chat, client, encoder, longChat, model, ongoing, until } from "./setup.js";

test("models", async () => {
  const ids = [];
  for await (const each of client.models.list()) ids.push(each.id);
  assert.deepEqual(ids, [model, encoder]);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("completions", async () => {
  const answer = await client.completions.create({ model, prompt: ["A cache is", "A key is"], max_tokens: 4 });
  assert.equal(answer.object, "text_completion");
  assert.equal(answer.choices.length, 2);
});

test("completions as a stream", async () => {
  let text = "";
  for await (const chunk of await client.completions.create({ model, prompt: "A cache is", max_tokens: 4, stream: true })) {
    text += chunk.choices[0].text;
  }
  assert.ok(text);
});

test("embeddings, which the client asks for as base64", async () => {
  const plain = await client.embeddings.create({ model: encoder, input: ["a cat", "a dog"] });
  const floats = await client.embeddings.create({ model: encoder, input: ["a cat", "a dog"], encoding_format: "float" });
  assert.deepEqual(plain.data.map((each) => each.index), [0, 1]);
  plain.data[0].embedding.forEach((value, place) => assert.ok(Math.abs(value - floats.data[0].embedding[place]) < 1e-6));
});

test("files and vector stores", async () => {
  const file = await client.files.create({ file: await toFile(Buffer.from("Tea is green."), "tea.txt"), purpose: "assistants" });
  const store = await client.vectorStores.create({ name: "notes" });
  const read = await client.vectorStores.files.createAndPoll(store.id, { file_id: file.id });
  assert.equal(read.status, "completed");
  const found = [];
  for await (const hit of client.vectorStores.search(store.id, { query: "Which colour is tea?" })) found.push(hit.filename);
  assert.deepEqual(found, ["tea.txt"]);
  assert.equal(await (await client.files.content(file.id)).text(), "Tea is green.");
  assert.ok((await client.vectorStores.delete(store.id)).deleted);
  assert.ok((await client.files.delete(file.id)).deleted);
});

test("errors are the client's own", async () => {
  await assert.rejects(client.chat.completions.create(chat({ temperature: 9 })), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    assert.equal(error.type, "invalid_request_error");
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(client.chat.completions.create(chat({ model: "gpt-none" })), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(client.chat.completions.create(chat({ stream: true, messages: [] })), OpenAI.BadRequestError);
  await assert.rejects(client.files.retrieve("file-none"), OpenAI.NotFoundError);
});

test("headers of an answer", async () => {
  const { response } = await client.chat.completions.create(chat(), { headers: { "x-request-id": "js-1" } }).withResponse();
  assert.equal(response.headers.get("x-request-id"), "js-1");
});

// These three look at what the engines do, one after the other.
test("clients that leave", async (t) => {
  await t.test("a timeout is the client's own error, and frees the engine", async () => {
    await assert.rejects(client.chat.completions.create(longChat(), { timeout: 1000 }), OpenAI.APIConnectionTimeoutError);
    await until("no running requests", 10_000, async () => (await ongoing()) === 0);
  });

  await t.test("an abort ends the request, and frees the engine", async () => {
    const controller = new AbortController();
    const answer = client.chat.completions.create(longChat(), { signal: controller.signal });
    await until("it runs", 10_000, async () => (await ongoing()) === 1);
    controller.abort();
    await assert.rejects(answer, OpenAI.APIUserAbortError);
    await until("no running requests", 10_000, async () => (await ongoing()) === 0);
  });

  await t.test("a stream that is left frees the engine", async () => {
    const stream = await client.chat.completions.create(longChat({ stream: true }));
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      break;
    }
    await until("no running requests", 10_000, async () => (await ongoing()) === 0);
  });
});
