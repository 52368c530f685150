// What the tests here share: the application's address comes from test_javascript_client.py.
import OpenAI from "openai";

export const model = process.env.MYGO_MODEL;
export const encoder = process.env.MYGO_ENCODER;
export const needsModel = process.env.MYGO_SIMULATED ? { skip: "the simulated engine has no model" } : {};

export const client = new OpenAI({
  baseURL: `${process.env.MYGO_URL}/v1`,
  apiKey: "unused",
  maxRetries: 0,
  timeout: 60_000,
  defaultHeaders: { "x-mygo-tenant": process.env.MYGO_TENANT },
});

let asked = 0;

// A request for a short answer that nobody has asked for before.
export function chat(fields = {}) {
  asked += 1;
  const content = `Write a line about a lantern and a harbor, number ${process.pid}-${asked}.`;
  return { model, messages: [{ role: "user", content }], max_tokens: 16, temperature: 0, ...fields };
}

// One that takes so long that somebody may leave before it ends.
export function longChat(fields = {}) {
  return chat({ max_tokens: 4000, ignore_eos: true, cache: { mode: "off" }, ...fields });
}

// Requests that engines work on.
export async function ongoing() {
  const { replicas } = await (await fetch(`${process.env.MYGO_URL}/readyz`)).json();
  return replicas.reduce((sum, each) => sum + (each.running ?? 0) + (each.waiting ?? 0), 0);
}

export async function until(what, limitMs, attempt) {
  const end = Date.now() + limitMs;
  while (!(await attempt())) {
    if (Date.now() > end) throw new Error(`${what}: not within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
