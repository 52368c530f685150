import assert from "node:assert/strict";
import { test } from "node:test";

import { LengthFinishReasonError } from "openai/error";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { chat, client, needsModel } from "./setup.js";

const Colour = z.object({ colour: z.enum(["red", "green", "blue"]), bright: z.boolean() });

test("parse gives an object of the caller's type", needsModel, async () => {
  const answer = await client.chat.completions.parse(chat({ response_format: zodResponseFormat(Colour, "colour"), max_tokens: 200 }));
  assert.ok(Colour.parse(answer.choices[0].message.parsed));
});

test("parse of a stream", needsModel, async () => {
  const stream = client.chat.completions.stream(chat({ response_format: zodResponseFormat(Colour, "colour"), max_tokens: 200 }));
  assert.ok(Colour.parse((await stream.finalChatCompletion()).choices[0].message.parsed));
});

test("parse of an answer that is cut off", needsModel, async () => {
  const request = chat({ response_format: zodResponseFormat(Colour, "colour"), max_tokens: 2 });
  await assert.rejects(client.chat.completions.parse(request), LengthFinishReasonError);
});

test("json_schema by hand", needsModel, async () => {
  const schema = { type: "object", properties: { sure: { type: "boolean" } }, required: ["sure"], additionalProperties: false };
  const request = chat({ response_format: { type: "json_schema", json_schema: { name: "answer", strict: true, schema } }, max_tokens: 200 });
  const { choices } = await client.chat.completions.create(request);
  assert.equal(typeof JSON.parse(choices[0].message.content).sure, "boolean");
});
