/**
 * The access token: asked for once when the server answers 401, kept for this browser tab only.
 * A page opened as `/?token=…` got a cookie from the server; the token then leaves the address bar and the history.
 */
import { signal } from "@preact/signals";

const KEY = "flatwater-token";

/** True while the page asks the user for a token; `refused` when the last one was wrong. */
export const asking = signal(false);
export const refused = signal(false);

let waiters: ((token: string) => void)[] = [];

export function token(): string | null {
  return sessionStorage.getItem(KEY);
}

/** Resolves when the user has given a token. Any number of refused requests share one question. */
export function ask(rejected: string | null): Promise<string> {
  const current = token();
  if (current !== null && current !== rejected) return Promise.resolve(current);
  refused.value = rejected !== null;
  sessionStorage.removeItem(KEY);
  asking.value = true;
  return new Promise((resolve) => waiters.push(resolve));
}

export function answer(text: string): void {
  sessionStorage.setItem(KEY, text);
  asking.value = false;
  const waiting = waiters;
  waiters = [];
  for (const resolve of waiting) resolve(text);
}

export function takeFromAddress(): void {
  const url = new URL(location.href);
  const given = url.searchParams.get("token");
  if (given === null) return;
  sessionStorage.setItem(KEY, given);
  url.searchParams.delete("token");
  history.replaceState(null, "", url);
}
