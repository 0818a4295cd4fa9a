/**
 * The page is left open for weeks, so everything it keeps between two clicks has a bound.
 * Collections that live as long as the page register in `pageLedger`, which the Ledger view shows beside the server's.
 */
import type { LedgerItem } from "./type";

export interface Holder {
  item(): LedgerItem;
}

const holders: Holder[] = [];

/** For holders that live as long as the page: nothing is ever taken out of the list. */
export function register(holder: Holder): void {
  holders.push(holder);
}

/** What this page itself holds, in the shape of the server's ledger. */
export function pageLedger(): LedgerItem[] {
  return holders.map((holder) => holder.item());
}

export function itemOf(name: string, kind: string, size: number, bound: number, evictions: number): LedgerItem {
  return { name, kind, size, bound, bytes: null, max_bytes: null, evictions };
}

/** A map that forgets its oldest entry when a new one would exceed the bound. */
export class BoundedMap<K, V> implements Holder {
  readonly #entries = new Map<K, V>();
  evictions = 0;

  constructor(
    readonly bound: number,
    readonly name = "",
  ) {
    if (name) register(this);
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: K): V | undefined {
    return this.#entries.get(key);
  }

  has(key: K): boolean {
    return this.#entries.has(key);
  }

  set(key: K, value: V): void {
    if (!this.#entries.has(key) && this.#entries.size >= this.bound) {
      this.#entries.delete(this.#entries.keys().next().value as K);
      this.evictions += 1;
    }
    this.#entries.set(key, value);
  }

  delete(key: K): void {
    this.#entries.delete(key);
  }

  clear(): void {
    this.#entries.clear();
  }

  values(): V[] {
    return [...this.#entries.values()];
  }

  item(): LedgerItem {
    return itemOf(this.name, "map", this.size, this.bound, this.evictions);
  }
}

/** The last `bound` values in order of arrival. */
export class Ring<T> implements Holder {
  #values: T[] = [];
  #start = 0;
  evictions = 0;

  constructor(
    readonly bound: number,
    readonly name = "",
  ) {
    if (name) register(this);
  }

  get size(): number {
    return this.#values.length;
  }

  get last(): T | undefined {
    return this.#values[(this.#start + this.size - 1) % this.bound];
  }

  push(value: T): void {
    if (this.size < this.bound) {
      this.#values.push(value);
      return;
    }
    this.#values[this.#start] = value;
    this.#start = (this.#start + 1) % this.bound;
    this.evictions += 1;
  }

  replace(values: readonly T[]): void {
    this.#values = values.slice(-this.bound);
    this.#start = 0;
  }

  toArray(): T[] {
    return [...this.#values.slice(this.#start), ...this.#values.slice(0, this.#start)];
  }

  item(): LedgerItem {
    return itemOf(this.name, "ring", this.size, this.bound, this.evictions);
  }
}
