/** How full something is: a bar and its numbers. */
import { percent } from "../format";

interface MeterProps {
  value: number;
  bound: number | null;
  label: string;
  text: string;
}

export function Meter({ value, bound, label, text }: MeterProps) {
  const share = bound && bound > 0 ? Math.min(1, value / bound) : 0;
    return (
    <span class="meter">
      <span class="meter-text">{text}</span>
      <svg class="meter-bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label={`${label}: ${percent(value, bound ?? 0)}`}>
        <rect width="100" height="6" />
        <rect class="meter-fill" width={share === 0 ? 0 : Math.max(1, share * 100)} height="6" />
      </svg>
    </span>
  );
}
