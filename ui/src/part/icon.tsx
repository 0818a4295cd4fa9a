/** Line icons on a 16 × 16 grid. They stand beside words, so they are hidden from screen readers. */
const PATHS = {
  overview: "M2 12a6 6 0 1 1 12 0M8 12l3-4",
  runs: "M5 3.5h9M5 8h9M5 12.5h9M2 3.5h.01M2 8h.01M2 12.5h.01",
  sites: "M2 2h5v5H2zM9 2h5v5H9zM2 9h5v5H2zM9 9h5v5H9z",
  definitions: "M5.5 1.5h5v3h-5zM1.5 11h5v3.5h-5zM9.500 11h5v3.500h-5zM8 4.500v3M4 11V7.500h8V11",
  triggers: "M9 1 3 9h4.500L6.500 15 13 6.500H8.500z",
  ledger: "M2 14h12M3.500 11V7M8 11V2M12.500 11V5",
  memory: "M3 3h10v10H3zM6 6h4v4H6zM5 1v2M8 1v2M11 1v2M5 13v2M8 13v2M11 13v2",
  guard: "M8 1.500 13.500 3.500V8c0 3-2.500 5.300-5.500 6.500C5 13.300 2.500 11 2.500 8V3.500zM5.500 8 7.500 10l3.500-4",
  gateway: "M1.500 8h4M10.500 4h4M10.500 12h4M5.500 8 10.500 4M5.500 8l5 4",
  queued: "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2M5.500 8h.01M8 8h.01M10.500 8h.01",
  running: "M5 2.500 13 8l-8 5.500z",
  waiting: "M4 2h8M4 14h8M5 2v2.500L8 8l3-3.500V2M5 14v-2.500L8 8l3 3.500V14",
  paused: "M5.500 3v10M10.500 3v10",
  succeeded: "M3 8.500 6.500 12 13 4.500",
  failed: "M4 4l8 8M12 4l-8 8",
  canceled: "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2M4 12l8-8",
  operator: "M8 1.500 15 14H1zM8 6v4M8 12h.01",
  skipped: "M3 4l5 4-5 4zM11.500 4v8",
  none: "M8 7.900h.01",
  lock: "M4 7h8v6.500H4zM5.500 7V5a2.500 2.500 0 0 1 5 0v2",
  disabled: "M3 3l10 10M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2",
  robot: "M3 6h10v7H3zM8 6V3M8 2.500h.01M6 9.500h.01M10 9.500h.01M1.500 8.500v2M14.500 8.500v2",
  charging: "M9 2 4.500 8.500H8L7 14l4.500-6.500H8z",
  open: "M6 4l4 4-4 4",
  closed: "M4 6l4 4 4-4",
  retry: "M13 8a5 5 0 1 1-1.500-3.500M13 2v3h-3",
  cancel: "M3.500 3.500h9v9h-9z",
  plus: "M8 3v10M3 8h10",
  copy: "M6 6h8v8H6zM10 6V2H2v8h4",
  upload: "M8 11V2.500M4.500 6 8 2.500 11.500 6M2.500 11v2.500h11V11",
  trash: "M2.500 4h11M6 4V2.500h4V4M4 4l.7 10h6.600L12 4",
  close: "M4 4l8 8M12 4l-8 8",
  older: "M6 3l5 5-5 5",
  newer: "M10 3 5 8l5 5",
  warn: "M8 1.500 15 14H1zM8 6v4M8 12h.01",
  file: "M4 1.500h5.500L12.500 4.500V14.500H4zM9.500 1.500v3h3",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 16 16" width={size} height={size} aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
