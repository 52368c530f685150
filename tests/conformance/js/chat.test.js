import assert from "node:assert/strict";
import { test } from "node:test";

import { chat, client, model, needsModel } from "./setup.js";

const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const NAMED = { type: "function", function: { name: "get_weather" } };

test("chat", async () => {
  const answer = await client.chat.completions.create(chat());
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.model, model);
  assert.equal(answer.choices[0].message.role, "assistant");
  assert.ok(answer.choices[0].message.content);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.ok(answer._request_id);
});

test("n choices", async () => {
  const answer = await client.chat.completions.create(chat({ n: 3, temperature: 1 }));
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2]);
});

test("a stream joins to the whole answer", async () => {
  const request = chat();
  let text = "";
  let last;
  for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
    text += chunk.choices[0].delta.content ?? "";
    last = chunk;
  }
  assert.ok(last.choices[0].finish_reason);
  const whole = await client.chat.completions.create({ ...request, cache: { mode: "off" } });
  assert.equal(text, whole.choices[0].message.content);
});

test("a kept answer is streamed as a computed one is", async () => {
  const request = chat({ stream: true, stream_options: { include_usage: true } });
  const texts = [];
  for (let turn = 0; turn < 2; turn += 1) {
    const { data: stream, response } = await client.chat.completions.create(request).withResponse();
    texts[turn] = "";
    let usage;
    for await (const chunk of stream) {
      texts[turn] += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.ok(usage.completion_tokens > 0);
    assert.equal(response.headers.get("x-mygo-cache"), ["miss", "exact"][turn]);
  }
  assert.equal(texts[0], texts[1]);
});

test("the stream helper gathers the answer", async () => {
  const stream = client.chat.completions.stream(chat());
  let text = "";
  stream.on("content", (delta) => {
    text += delta;
  });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, text);
});

test("usage at a stream's end", async () => {
  const chunks = [];
  for await (const chunk of await client.chat.completions.create(chat({ stream: true, stream_options: { include_usage: true } }))) {
    chunks.push(chunk);
  }
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
  assert.ok(chunks.slice(0, -1).every((chunk) => chunk.usage === null));
});

test("logprobs", needsModel, async () => {
  const answer = await client.chat.completions.create(chat({ logprobs: true, top_logprobs: 2, max_tokens: 3 }));
  assert.ok(answer.choices[0].logprobs.content.every((token) => token.logprob <= 0 && token.top_logprobs.length === 2));
});

test("a function is called, and its result is taken", needsModel, async () => {
  const request = chat({ tools: [WEATHER], tool_choice: NAMED, max_tokens: 200 });
  const { message } = (await client.chat.completions.create(request)).choices[0];
  assert.equal(message.tool_calls[0].function.name, "get_weather");
  assert.ok(["Paris", "Rome"].includes(JSON.parse(message.tool_calls[0].function.arguments).city));
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "21 degrees" };
  const next = await client.chat.completions.create(
    chat({ messages: [...request.messages, message, result], tools: [WEATHER], tool_choice: "none" }),
  );
  assert.ok(next.choices[0].message.content);
});

test("a streamed function call", needsModel, async () => {
  const stream = client.chat.completions.stream(chat({ tools: [WEATHER], tool_choice: NAMED, max_tokens: 200 }));
  const final = await stream.finalMessage();
  assert.equal(final.tool_calls[0].function.name, "get_weather");
  assert.ok(["Paris", "Rome"].includes(JSON.parse(final.tool_calls[0].function.arguments).city));
});

test("runTools calls a function of the program", needsModel, async () => {
  const called = [];
  const tool = {
    type: "function",
    function: {
      ...WEATHER.function,
      parse: JSON.parse,
      function: ({ city }) => {
        called.push(city);
        return "21 degrees";
      },
    },
  };
  const runner = client.chat.completions.runTools(chat({ tools: [tool], tool_choice: NAMED, max_tokens: 200 }));
  await runner.done();
  assert.equal(called.length, 1);
});
