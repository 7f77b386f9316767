// Reading a stream that comes as the body of a fetch.

// What a browser says of it, in words of its own, is the `cause`.
export class BrokenOff extends Error {
  constructor(cause) {
    super("The connection broke off: this is not all.", { cause });
  }
}

export async function* chunks(body) {
  const reader = body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : new BrokenOff(error);
      });
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever leaves the loop is done with the connection
  }
}

export async function* lines(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of chunks(body)) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop();
    yield* parts;
  }
}
