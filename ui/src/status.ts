/** The server's figures: the small ones by stream every two seconds, the memory's past in a ring. */
import { computed, signal } from "@preact/signals";
import { api } from "./api";
import { Ring } from "./bounded";
import { serverNow, setServerTime } from "./clock";
import type { Batch } from "./event";
import { Resource } from "./resource";
import type { Sample } from "./slope";
import { stream } from "./stream";
import type { Info, Pulse, Readiness, Status } from "./type";

const MAX_SAMPLES = 720;
const STATUS_EVERY_MS = 10_000;
const READY_EVERY_MS = 5000;

export const info = signal<Info | null>(null);
export const pulse = signal<Pulse | null>(null);

const past = new Ring<Sample>(MAX_SAMPLES, "memory samples");
export const samples = signal<readonly Sample[]>([]);
let interval = 2;

export const status = new Resource<Status>(
  async (abort) => {
    const loaded = await api.status(abort);
    setServerTime(loaded.now);
    takeHistory(loaded.memory.history);
    return loaded;
  },
  { everyMs: STATUS_EVERY_MS },
);

export const readiness = new Resource<Readiness>((abort) => api.ready(abort), { everyMs: READY_EVERY_MS });

/** Started at: the server's own word when we have it. */
export const startedAt = computed(() => info.value?.started_at ?? null);

export function startStatus(): void {
  const loadInfo = () => api.info().then((loaded) => (info.value = loaded)).catch(() => undefined);
  void loadInfo();
  void status.reload();
  void readiness.reload();
  stream.listen((batch) => {
    applyStatus(batch);
    if (batch.missed === 0) return;
    // After a break this may be another process with another start and another past.
    status.soon();
    readiness.soon();
    void loadInfo();
  });
}

export function applyStatus(batch: Batch): void {
  for (const event of batch.events) {
    if (event.type !== "status") continue;
    const { type: _type, ...figures } = event;
    pulse.value = figures;
    addSample(serverNow(), figures.rss_bytes);
  }
}

/** The server's past has its own spacing; live samples between two of its points are left out, so the ring spans as long. */
function takeHistory(history: readonly Sample[]): void {
  past.replace(history);
  const first = history[0];
  const last = history[history.length - 1];
  if (first && last && history.length > 2) interval = Math.max(1, (last[0] - first[0]) / (history.length - 1));
  samples.value = past.toArray();
}

export function addSample(at: number, rss: number): void {
  const last = past.last;
  if (last && at - last[0] < interval * 0.9) return;
  past.push([at, rss]);
  samples.value = past.toArray();
}
