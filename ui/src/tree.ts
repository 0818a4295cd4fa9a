/** A run's block tree: the definition's nodes joined with what has happened, loops folded to one iteration at a time. */
import type { BlockState, Json, State, Step, TreeNode, Wait } from "./type";

export const MAX_STEPS = 20_000;
export const MAX_ROWS = 600;

export interface Iterations {
  /** The indices that have left a trace, ascending. */
  indices: number[];
  states: Map<number, BlockState>;
  shown: number;
}

export interface Row {
  key: string;
  path: string;
  level: number;
  node: TreeNode;
  /** The branch this block hangs in, when its parent has several or names it. */
  branch: string | null;
  step: Step | null;
  state: BlockState | null;
  iterations: Iterations | null;
  open: boolean | null;
}

export interface TreeView {
  closed: ReadonlySet<string>;
  iteration: ReadonlyMap<string, number>;
}

/** The more a state asks for attention, the further left. */
const URGENCY: readonly BlockState[] = ["FAILED", "NEEDS_OPERATOR", "RUNNING", "WAITING", "PAUSED", "QUEUED", "CANCELED", "SUCCEEDED", "SKIPPED"];

const LIVE: ReadonlySet<BlockState> = new Set(["NEEDS_OPERATOR", "RUNNING", "WAITING", "PAUSED"]);

/** Steps by path, with the iterations that occur under each loop. Holds at most MAX_STEPS. */
export class StepIndex {
  readonly #steps = new Map<string, Step>();
  readonly #loops = new Map<string, Map<number, Set<string>>>();
  /** Blocks that something is known to have happened in. */
  readonly #touched = new Set<string>();
  /** Steps that were not taken in because of the bound. */
  dropped = 0;

  constructor(
    steps: readonly Step[] = [],
    readonly bound = MAX_STEPS,
  ) {
    for (const step of steps) this.put(step);
  }

  get size(): number {
    return this.#steps.size;
  }

  get(path: string): Step | undefined {
    return this.#steps.get(path);
  }

  put(step: Step): void {
    if (!this.#steps.has(step.path) && this.#steps.size >= this.bound) {
      this.dropped += 1;
      return;
    }
    const known = this.#steps.has(step.path);
    this.#steps.set(step.path, { ...this.#steps.get(step.path), ...step });
    if (known) return;
    this.#count(step.path);
    for (let at = step.path.lastIndexOf("/"); at > 0; at = step.path.lastIndexOf("/", at - 1)) {
      this.#touched.add(step.path.slice(0, at).replace(/\[\d+\]$/, ""));
    }
  }

  /** A block that waits has no record of its own until it ends: its wait tells of it. `-1/5#retry1` is block -1/5's pause. */
  wait(wait: Wait): void {
    const [path = "", pause] = wait.path.split("#", 2);
    const step = this.#steps.get(path);
    if (step && step.state !== "RUNNING" && pause === undefined) return;
    this.put({ started_at: wait.since, ...step, path, name: step?.name ?? "", state: "WAITING", wait });
  }

  /** Whether anything below this block has happened. */
  touched(path: string): boolean {
    return this.#touched.has(path);
  }

  /** `-1/3[2]/5/6[0]/7` tells of iteration 2 of `-1/3` and iteration 0 of `-1/3[2]/5/6`; block 7 is that one's child. */
  #count(path: string): void {
    for (const match of path.matchAll(/\[(\d+)\]\//g)) {
      const children = this.#childrenOf(path.slice(0, match.index), Number(match[1]));
      if (!path.includes("/", match.index + match[0].length)) children.add(path);
    }
  }

  #childrenOf(loop: string, index: number): Set<string> {
    let indices = this.#loops.get(loop);
    if (!indices) this.#loops.set(loop, (indices = new Map()));
    let children = indices.get(index);
    if (!children) indices.set(index, (children = new Set()));
    return children;
  }

  /** An iteration is as its most urgent direct child; while only deeper blocks are known, it runs. */
  #stateOf(children: ReadonlySet<string>): BlockState {
    const states = new Set([...children].map((path) => this.#steps.get(path)?.state));
    return URGENCY.find((state) => states.has(state)) ?? "RUNNING";
  }

  iterations(path: string, chosen: number | undefined): Iterations | null {
    const loop = this.#loops.get(path);
    if (!loop) return null;
    const indices = [...loop.keys()].sort((a, b) => a - b);
    const states = new Map(indices.map((index) => [index, this.#stateOf(loop.get(index) as Set<string>)]));
    return { indices, states, shown: chosen !== undefined && loop.has(chosen) ? chosen : interesting(indices, states) };
  }

  /** Names of the innermost blocks in one of these states. */
  doing(root: TreeNode, states: ReadonlySet<BlockState>): string[] {
    const paths = [...this.#steps.values()].filter((step) => states.has(step.state)).map((step) => step.path);
    const inner = paths.filter((path) => !paths.some((other) => other.startsWith(`${path}/`) || other.startsWith(`${path}[`)));
    const names = namesById(root);
    return [...new Set(inner.map((path) => this.#steps.get(path)?.name || names.get(idOf(path)) || path))];
  }
}

/** Where something happens now, else the first that failed, else the last. */
function interesting(indices: number[], states: Map<number, BlockState>): number {
  const live = indices.findLast((index) => LIVE.has(states.get(index) ?? "SKIPPED"));
  return live ?? indices.find((index) => states.get(index) === "FAILED") ?? indices[indices.length - 1] ?? 0;
}

function idOf(path: string): number {
  return Number((path.split("/").pop() ?? "").replace(/\[\d+\]$/, ""));
}

function namesById(root: TreeNode): Map<number, string> {
  const names = new Map<number, string>();
  const stack = [root];
  for (let node = stack.pop(); node; node = stack.pop()) {
    names.set(node.id, node.name);
    for (const branch of Object.values(node.children ?? {})) stack.push(...branch);
  }
  return names;
}

/** Stored definitions have their keys sorted; people read "if" before "else". */
const BRANCHES = ["default", "if", "else_if", "else", "try", "catch"];

export function childrenOf(node: TreeNode): { branch: string; node: TreeNode }[] {
  const branches = Object.entries(node.children ?? {}).sort(([a], [b]) => BRANCHES.indexOf(a) - BRANCHES.indexOf(b));
  return branches.flatMap(([branch, nodes]) => nodes.map((child) => ({ branch, node: child })));
}

/**
 * The visible rows, at most `most`; `more` says how many further blocks there would be. A block with children that has
 * begun but has no record of its own yet is as its run is.
 */
export function rowsOf(root: TreeNode, steps: StepIndex, view: TreeView, run: State, most = MAX_ROWS): { rows: Row[]; more: number } {
  const rows: Row[] = [];
  let more = 0;
  const visit = (node: TreeNode, path: string, level: number, branch: string | null): void => {
    const children = childrenOf(node);
    const iterations = children.length > 0 ? steps.iterations(path, view.iteration.get(path)) : null;
    const open = children.length > 0 ? !view.closed.has(path) : null;
    const step = steps.get(path) ?? null;
    const state = step?.state ?? (steps.touched(path) ? run : null);
    if (rows.length < most) rows.push({ key: path, path, level, node, branch, step, state, iterations, open });
    else more += 1;
    if (!open) return;
    const base = iterations ? `${path}[${iterations.shown}]` : path;
    for (const child of children) visit(child.node, `${base}/${child.node.id}`, level + 1, labelOf(node, child.branch));
  };
  visit(root, String(root.id), 0, null);
  return { rows, more };
}

function labelOf(parent: TreeNode, branch: string): string | null {
  const single = Object.keys(parent.children ?? {}).length === 1;
  return single && branch === "default" ? null : branch;
}

/** Every ancestor of a path, and the iterations on the way: to open the tree at a block. */
export function reveal(path: string, view: TreeView): TreeView {
  const closed = new Set(view.closed);
  const iteration = new Map(view.iteration);
  let at = "";
  for (const part of path.split("/")) {
    const match = /^(.*)\[(\d+)\]$/.exec(part);
    const plain = `${at}${match ? match[1] : part}`;
    closed.delete(plain);
    if (match) iteration.set(plain, Number(match[2]));
    at = `${at}${part}/`;
  }
  closed.delete(path);
  return { closed, iteration };
}

interface DefinitionBlock {
  id?: Json;
  name?: Json;
  blockType?: Json;
  remark?: Json;
  children?: Json;
}

/** The tree of a definition that has not run: `blockType` becomes `type`. Lenient, for it also draws drafts. */
export function treeOfDefinition(block: Json | undefined, depth = 0): TreeNode | null {
  if (block === null || typeof block !== "object" || Array.isArray(block) || depth > 60) return null;
  const { id, name, blockType, remark, children } = block as DefinitionBlock;
  const branches: Record<string, TreeNode[]> = {};
  if (children !== null && typeof children === "object" && !Array.isArray(children)) {
    for (const [branch, nodes] of Object.entries(children)) {
      if (!Array.isArray(nodes)) continue;
      branches[branch] = nodes.map((node) => treeOfDefinition(node, depth + 1)).filter((node) => node !== null);
    }
  }
  return {
    id: typeof id === "number" ? id : Number(id ?? 0),
    name: typeof name === "string" ? name : "",
    type: typeof blockType === "string" ? blockType : "?",
    remark: typeof remark === "string" ? remark : null,
    children: branches,
  };
}

/** The definition's node at a path of a run; null when the path leads out of the tree. */
export function nodeAt(root: TreeNode, path: string): TreeNode | null {
  const [first, ...parts] = path.split("/").map(idOf);
  if (first !== root.id) return null;
  let node: TreeNode | undefined = root;
  for (const id of parts) {
    node = node && childrenOf(node).find((child) => child.node.id === id)?.node;
  }
  return node ?? null;
}
