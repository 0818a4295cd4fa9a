/** The server's HTTP API, one function per call. Every failure is an `ApiError` that says what the server said. */
import { ask, token } from "./token";
import type * as T from "./type";

const TIMEOUT_MS = 20_000;

interface ErrorBody {
  code?: string;
  message?: string;
  where?: string | null;
  path?: string | null;
  hint?: string | null;
  problems?: T.Problem[] | null;
}

export class ApiError extends Error {
  readonly code: string;
  readonly where: string | null;
  readonly hint: string | null;
  readonly problems: T.Problem[];

  constructor(
    readonly status: number,
    body: ErrorBody,
  ) {
    super(body.message ?? `the server answered ${status}`);
    this.code = body.code ?? String(status);
    this.where = body.where ?? body.path ?? null;
    this.hint = body.hint ?? null;
    this.problems = body.problems ?? [];
  }
}

/** What went wrong in one sentence, for a person. */
export function explain(error: unknown): string {
  if (error instanceof ApiError) return [error.where, error.message].filter(Boolean).join(": ") + (error.hint ? `. ${error.hint}` : "");
  if (error instanceof DOMException && error.name === "TimeoutError") return `The server did not answer within ${TIMEOUT_MS / 1000} s.`;
  if (error instanceof TypeError) return "The server cannot be reached. Is it running?";
  return error instanceof Error ? error.message : String(error);
}

export type Query = Record<string, string | number | null | undefined>;
interface CallOptions {
  query?: Query;
  body?: unknown;
  text?: string;
  /** A status that is an answer all the same. */
  also?: number;
  signal?: AbortSignal;
}

/** The page may be served below a prefix: addresses are relative to the document. */
export function address(path: string, query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value != null && value !== "") params.set(key, String(value));
  const tail = params.toString();
  return `./${path}${tail ? `?${tail}` : ""}`;
}

export function authorization(): Record<string, string> {
  const given = token();
  return given === null ? {} : { Authorization: `Bearer ${given}` };
}

async function request(method: string, path: string, options: CallOptions): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json", ...authorization() };
  const payload = options.text ?? (options.body === undefined ? undefined : JSON.stringify(options.body));
  if (payload !== undefined) headers["Content-Type"] = "application/json";
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  return fetch(address(path, options.query), { method, headers, signal, ...(payload === undefined ? {} : { body: payload }) });
}

async function call<R>(method: string, path: string, options: CallOptions = {}): Promise<R> {
  let response: Response;
  for (;;) {
    const sent = token();
    response = await request(method, path, options);
    if (response.status !== 401) break;
    await ask(sent);
  }
  const body = await read(response);
  if (!response.ok && response.status !== options.also) throw new ApiError(response.status, (body as { error?: ErrorBody } | null)?.error ?? {});
  return body as R;
}

async function read(response: Response): Promise<unknown> {
  const text = await response.text();
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    return { error: { message: `the server answered ${response.status} without JSON` } };
  }
}

const id = encodeURIComponent;

export interface RunFilter {
  states: readonly string[];
  definition: string;
  order: string;
  parent?: string;
}

export const api = {
  info: () => call<T.Info>("GET", "api/info"),
  status: (signal?: AbortSignal) => call<T.Status>("GET", "api/status", with_(signal)),
  /** 503 is an answer here, not an error: the body says why. */
  ready: (signal?: AbortSignal) => call<T.Readiness>("GET", "readyz", { ...with_(signal), also: 503 }),
  ledger: (signal?: AbortSignal) => call<{ items: T.LedgerItem[] }>("GET", "api/ledger", with_(signal)),

  guards: (signal?: AbortSignal) => call<T.Guards>("GET", "api/guard", with_(signal)),
  release: (pid: number, task: string) => call<{ task: string }>("POST", `api/guard/${pid}/release`, { body: { task } }),
  gateway: (signal?: AbortSignal) => call<T.GatewayView>("GET", "api/gateway", { query: { limit: 50 }, ...with_(signal) }),
  memory: (signal?: AbortSignal) => call<T.MemoryFigures>("GET", "api/memory", with_(signal)),
  heap: (floor: number, search: string, signal?: AbortSignal) =>
    call<T.HeapLook>("GET", "api/memory/heap", { query: { floor, search }, ...with_(signal) }),
  takeGraph: () => call<{ largest: T.HeapNode[] }>("POST", "api/memory/graph"),
  heapObject: (object: string, signal?: AbortSignal) => call<T.HeapObject>("GET", `api/memory/objects/${id(object)}`, with_(signal)),
  collect: () => call<{ freed: number; uncollectable: number }>("POST", "api/memory/collect"),
  trim: () => call<{ before: number; after: number }>("POST", "api/memory/trim"),

  runs: (filter: RunFilter, limit: number, cursor: string | null, signal?: AbortSignal) =>
    call<T.Page<T.Run>>("GET", "api/runs", {
      query: {
        state: filter.states.join(","),
        definition: filter.definition,
        out_order_no: filter.order,
        parent: filter.parent,
        limit,
        cursor,
      },
      ...with_(signal),
    }),
  run: (run: string, signal?: AbortSignal) => call<T.RunDetail>("GET", `api/runs/${id(run)}`, with_(signal)),
  blocks: (run: string, cursor: string | null, signal?: AbortSignal) =>
    call<T.Blocks>("GET", `api/runs/${id(run)}/blocks`, { query: { cursor }, ...with_(signal) }),
  log: (run: string, limit: number, cursor: string | null, signal?: AbortSignal) =>
    call<T.Page<T.LogLine>>("GET", `api/runs/${id(run)}/log`, { query: { limit, cursor }, ...with_(signal) }),
  submit: (body: T.Submission) => call<{ id: string; state: T.State }>("POST", "api/runs", { body }),
  act: (run: string, action: T.RunAction) => call<T.Run>("POST", `api/runs/${id(run)}/${action}`),

  sites: (cursor: string | null, signal?: AbortSignal) => call<T.Page<T.Site>>("GET", "api/sites", { query: { cursor }, ...with_(signal) }),
  changeSite: (site: string, body: T.SitePatch) => call<T.Site>("PATCH", `api/sites/${id(site)}`, { body }),
  siteChanges: (site: string, limit: number, signal?: AbortSignal) =>
    call<T.Page<T.SiteChange>>("GET", "api/sites/changes", { query: { site, limit }, ...with_(signal) }),
  robots: (signal?: AbortSignal) => call<{ items: T.Robot[] }>("GET", "api/robots", with_(signal)),

  definitions: (cursor: string | null, limit: number, signal?: AbortSignal) =>
    call<T.Page<T.DefinitionInfo>>("GET", "api/definitions", { query: { limit, cursor }, ...with_(signal) }),
  definition: (name: string, signal?: AbortSignal) => call<T.DefinitionDetail>("GET", `api/definitions/${id(name)}`, with_(signal)),
  saveDefinition: (text: string) => call<T.DefinitionInfo>("POST", "api/definitions", { text }),
  deleteDefinition: (name: string) => call<null>("DELETE", `api/definitions/${id(name)}`),
  validate: (text: string) => call<T.Validation>("POST", "api/definitions/validate", { text }),
  palette: (signal?: AbortSignal) => call<{ items: T.BlockKind[] }>("GET", "api/definitions/blocks", with_(signal)),

  triggers: (signal?: AbortSignal) => call<T.Page<T.Trigger>>("GET", "api/triggers", { query: { limit: 500 }, ...with_(signal) }),
  saveTrigger: (body: T.TriggerInput) => call<T.Trigger>("POST", "api/triggers", { body }),
  publish: (name: string, data: T.Json) => call<{ delivered: number; started: string[] }>("POST", "api/events", { body: { name, data } }),
  events: (limit: number, signal?: AbortSignal) => call<T.Page<T.ExternalEvent>>("GET", "api/events", { query: { limit }, ...with_(signal) }),
};

function with_(signal: AbortSignal | undefined): { signal?: AbortSignal } {
  return signal ? { signal } : {};
}
