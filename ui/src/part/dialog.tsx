/** Native dialogs: the browser keeps the focus inside and Escape closes. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Icon } from "./icon";

interface DialogProps {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
  /** Without it the dialog can be left only by its own buttons. */
  closable?: boolean;
}

export function Dialog({ title, onClose, children, wide = false, closable = true }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const element = dialog.current;
    element?.showModal();
    return () => element?.close();
  }, []);
  const cancel = (event: Event) => {
    event.preventDefault();
    if (closable) onClose();
  };
  return (
    <dialog ref={dialog} class={wide ? "dialog wide" : "dialog"} aria-labelledby="dialog-title" onCancel={cancel}>
      <header class="dialog-head">
        <h2 id="dialog-title">{title}</h2>
        {closable && (
          <button type="button" class="plain square" onClick={onClose} aria-label="Close">
            <Icon name="close" />
          </button>
        )}
      </header>
      {children}
    </dialog>
  );
}
