/** The server's time, ticking once a second while the page is visible. Ages are told by the server's clock, not the tablet's. */
import { signal } from "@preact/signals";

let offset = 0;

export function serverNow(): number {
  return Date.now() / 1000 + offset;
}

export const now = signal(serverNow());

/** Called with the `now` of a status answer. */
export function setServerTime(at: number): void {
  offset = at - Date.now() / 1000;
  tick();
}

export function tick(): void {
  now.value = serverNow();
}

export function startClock(): void {
  setInterval(() => document.hidden || tick(), 1000);
  document.addEventListener("visibilitychange", tick);
}
