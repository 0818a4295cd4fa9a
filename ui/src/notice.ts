/** Short messages at the edge of the page, and the question before something that cannot be undone. */
import { signal } from "@preact/signals";

export interface Notice {
  id: number;
  kind: "ok" | "error";
  text: string;
}

const MAX_NOTICES = 4;
const SHOWN_MS = 6000;
const ERROR_SHOWN_MS = 15_000;

export const notices = signal<Notice[]>([]);
let nextId = 1;

export function notify(kind: Notice["kind"], text: string): void {
  const id = nextId++;
  notices.value = [...notices.value, { id, kind, text }].slice(-MAX_NOTICES);
  setTimeout(() => dismiss(id), kind === "error" ? ERROR_SHOWN_MS : SHOWN_MS);
}

export function dismiss(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

export interface Question {
  title: string;
  text: string;
  /** The word on the button that does it. */
  action: string;
  danger?: boolean;
}

export const question = signal<(Question & { answer: (yes: boolean) => void }) | null>(null);

export function confirm(asked: Question): Promise<boolean> {
  question.value?.answer(false);
  return new Promise((resolve) => {
    question.value = {
      ...asked,
      answer: (yes) => {
        question.value = null;
        resolve(yes);
      },
    };
  });
}
