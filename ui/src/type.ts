/** What the server answers: the same shapes as flatwater/server/type.py. Times are seconds since the epoch. */

export type State =
  | "QUEUED"
  | "RUNNING"
  | "WAITING"
  | "PAUSED"
  | "SUCCEEDED"
  | "FAILED"
  | "CANCELED"
  | "NEEDS_OPERATOR";
export type BlockState = State | "SKIPPED";
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Page<T> {
  items: T[];
  next: string | null;
}

export interface Wait {
  path: string;
  kind: string;
  reason: string | null;
  since: number | null;
  place: number | null;
}

export interface Run {
  id: string;
  definition: string;
  label: string;
  version: number;
  state: State;
  priority: number;
  due_at: number | null;
  created_at: number;
  started_at: number | null;
  ended_at: number | null;
  attempt: number;
  error: string | null;
  error_path: string | null;
  parent_id: string | null;
  out_order_no: string | null;
  state_message: string | null;
  wait: Wait[] | null;
}

export interface RunDetail extends Run {
  inputs: Json;
  outputs: Json;
  variables: Json;
  response: Json;
}

/** `remark` is known only of definitions, not of runs. */
export interface TreeNode {
  id: number;
  name: string;
  type: string;
  remark?: string | null;
  children?: Record<string, TreeNode[]>;
}

export interface Step {
  path: string;
  block_id?: number;
  name: string;
  type?: string | null;
  state: BlockState;
  attempt?: number;
  started_at?: number | null;
  ended_at?: number | null;
  outputs?: Json;
  error?: string | null;
  progress?: Json;
  wait?: Wait | null;
}

/** `tree` comes on the first page; `steps` in the order of their paths. */
export interface Blocks {
  tree: TreeNode | null;
  steps: Step[];
  next: string | null;
}

export interface LogLine {
  at: number;
  level: string;
  path: string | null;
  message: string;
}

export interface Site {
  id: string;
  group: string | null;
  order_no: number;
  enabled: boolean;
  filled: boolean;
  content: string | null;
  locked_by: { run: string; path: string | null } | null;
  locked_text: string | null;
  lane: string | null;
  depth: number | null;
  mouths: number | null;
  tags: string[];
  attrs: { [name: string]: Json };
  map_id: string | null;
  x: number | null;
  y: number | null;
  updated_at: number;
}

export interface SitePatch {
  filled?: boolean;
  content?: string | null;
  enabled?: boolean;
  locked?: false;
}

export interface SiteChange {
  id: number;
  at: number;
  site_id: string;
  run_id: string | null;
  path: string | null;
  change: Json;
}

/** `battery` is 0 … 1; `waypoints` are `[at, x, y]` of the rest of its way. */
export interface Robot {
  id: string;
  state: string;
  battery: number | null;
  station: string | null;
  x: number | null;
  y: number | null;
  run: string | null;
  path: string | null;
  operation: string | null;
  target: string | null;
  carrying: string | null;
  waypoints: [at: number, x: number, y: number][];
  error: string | null;
}

export interface DefinitionInfo {
  id: string;
  label: string;
  version: number;
  hash: string;
  remark: string | null;
  enabled: boolean;
  created_at: number;
  updated_at: number;
}

export interface DefinitionDetail extends DefinitionInfo {
  definition: { [key: string]: Json };
}

export interface Problem {
  path: string;
  message: string;
  hint?: string | null;
}

export interface Validation {
  ok: boolean;
  problems: Problem[];
  flow: { nodes: number; depth: number; inputs: Json; warnings: Problem[] } | null;
}

export interface BlockKind {
  type: string;
  family: string;
  description: string;
  branches: string[];
  params: Json;
  outputs: Json;
  recovery: string;
}

export interface Trigger {
  id: string;
  definition_id: string;
  kind: string;
  spec: string;
  inputs: Json;
  priority: number;
  enabled: boolean;
  next_at: number | null;
  last_at: number | null;
  last_run_id: string | null;
  max_pending: number;
}

export interface ExternalEvent {
  id: number;
  at: number;
  name: string;
  data: Json;
}

export interface Memory {
  rss_bytes: number;
  pss_bytes: number | null;
  uss_bytes: number | null;
  threads: number;
  fds: number;
  asyncio_tasks: number;
  limit_bytes: number | null;
  history: [number, number][];
}

/** `runs` counts by state, and `active`, `pending`, `waiting`. */
export interface Status {
  now: number;
  uptime_s: number;
  memory: Memory;
  runs: Record<string, number>;
  capped: boolean;
  contexts: { live?: number; overdue?: number };
  rate_per_s: number;
}

/** The small status that comes over the event stream every two seconds. */
export interface Pulse {
  rss_bytes: number;
  active: number;
  pending: number;
  waiting: number;
  rate_per_s: number;
}

export interface LedgerItem {
  name: string;
  kind: string;
  size: number;
  bound: number;
  bytes: number | null;
  max_bytes: number | null;
  evictions: number;
}

export interface Info {
  version: string;
  started_at: number;
  database: string;
  demo: boolean;
  token_required: boolean;
  gateway: boolean;
}

export interface Readiness {
  ready: boolean;
  checks: Record<string, { ok: boolean; detail: string }>;
}

export interface Submission {
  definition: string;
  inputs?: { [key: string]: Json };
  priority?: number;
  delay_s?: number;
  idempotency_key?: string;
  timeout_s?: number;
}

export type RunAction = "cancel" | "pause" | "resume" | "retry";

export interface TriggerInput {
  id: string;
  definition_id: string;
  kind: string;
  spec: string;
  inputs: { [key: string]: Json };
  priority: number;
  enabled: boolean;
  max_pending: number;
}

export interface MemoryFigures {
  usage: {
    memory: { rss: number; pss: number | null; uss: number | null; threads: number };
    malloc: { free: number } | null;
    collector: { enabled: boolean; frozen: number };
    blocks: number;
    tasks: number | null;
  };
  pools: { database: string; size: number | null; checked_out: number | null; idle: number | null; max_overflow: number | null }[];
}

/** A type, or with an id a container. */
export interface HeapRow {
  type: string;
  now: number;
  grown: number;
  bytes: number;
  history: number[];
  id: string;
}

export interface HeapLook {
  looks: number;
  cost_s: number;
  types: HeapRow[];
  containers: HeapRow[];
}

/** An object, or with `root` the beginning of a path. */
export interface HeapNode {
  id?: string;
  type?: string;
  root?: string;
  name?: string;
  label?: string;
  length?: number | null;
  retained_bytes: number;
}

export interface Neighbour {
  how: string;
  node: HeapNode;
}

export interface HeapObject {
  node: HeapNode;
  path: { text: string };
  held_count: number;
  held_by: Neighbour[];
  holds_count: number;
  holds: Neighbour[];
}

export interface GatewayEndpoint {
  url: string;
  state: string;
  failures: number;
  last_error: string;
  pool: { size: number; bound: number; idle: number };
}

export interface GatewayService {
  name: string;
  requests: number;
  statuses: Record<string, number>;
  refused: Record<string, number>;
  latency: { p50: number; p99: number; maximum: number };
  breaker: { requests: number; max_requests: number };
  endpoints: GatewayEndpoint[];
}

export interface GatewayRecord {
  at: number;
  service: string;
  method: string;
  target: string;
  status: number;
  reason: string;
  duration_s: number;
  id: string;
  cache: string;
}

export interface GatewayView {
  now: number;
  statistics: {
    active: number;
    max_requests: number;
    requests: number;
    reloads: number;
    history: number;
    services: GatewayService[];
    tasks: { size: number };
    cache: {
      size: number;
      bytes: number | null;
      max_bytes: number | null;
      evictions: number;
      hits: number;
      stale_hits: number;
      misses: number;
      validations: number;
    } | null;
    overload: { size: number; pressure: number } | null;
  };
  history: GatewayRecord[];
  background: { name: string; age_s: number }[];
}

export interface GuardWorker {
  worker: { place: number; pid: number; since: number; level: number; highest: number; base: number; leaving: string };
  running: { name: string; id: string; pid: number; since: number }[];
}

/** A task over all processes of a guard's record; growth is null where it could not be told. */
export interface GuardedTask {
  name: string;
  count: number;
  failed: number;
  mean_s: number;
  max_s: number;
  peak: number;
  per_call: number | null;
  low: number | null;
  high: number | null;
  share: number | null;
}

export interface GuardEnd {
  at: number;
  pid: number;
  reason: string;
  detail: string;
  life_s: number | null;
  freed: number;
  away_s: number | null;
}

/** A process that runs tasks, as it last told of itself; `holders` says which allocators have what is not given back. */
export interface GuardedProcess {
  pid: number;
  worker: string;
  level: number;
  base: number;
  trims: number;
  trimmed: number;
  trim_s: number;
  holders: string;
  lives: boolean;
  back: boolean;
  rest: string;
}

export interface GuardReport {
  tasks: GuardedTask[];
  processes: GuardedProcess[];
  trims: number;
  trimmed: number;
  trim_s: number;
  ended: GuardEnd[];
  recycled: number;
  given_back: number;
  away_s: number;
  quarantined: string[];
}

export interface Guarded {
  guard: { pid: number; start: string; command: string[]; record: string; since: number; soft: number | null; hard: number | null };
  workers: GuardWorker[];
  report: GuardReport | null;
  trouble: string;
}

export interface Guards {
  items: Guarded[];
}
