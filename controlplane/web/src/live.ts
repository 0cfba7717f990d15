// The event stream of the page, and the badge that says how fresh it is. A cut stream changes shape and word, never silently.
export interface Patch { live: [string, string, string]; rows?: { k: string; c: Record<string, string> }[]; new: number; nav: string; clock: string }
const listeners: ((p: Patch) => void)[] = [];
export const onPatch = (f: (p: Patch) => void) => { listeners.push(f); };

class LiveBadge extends HTMLElement {
  es?: EventSource; last = Date.now(); lastClock = ""; lost = false; timer = 0;

  connectedCallback() {
    this.lastClock = document.getElementById("clock")?.textContent ?? "";
    this.open();
    document.addEventListener("visibilitychange", () => { if (document.hidden) this.timer = window.setTimeout(() => this.close(), 60_000); else { clearTimeout(this.timer); if (!this.es) this.open(); } });
    // Every page shows what it knew when it was left; a page restored from the back-forward cache is stale.
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
    setInterval(() => { if (this.es && Date.now() - this.last > 25_000) this.off(); }, 2_000);
  }
  open() {
    if (!this.dataset.url) return;
    const es = (this.es = new EventSource(this.dataset.url));
    let waiting: Patch | null = null, frame = 0;
    es.addEventListener("patch", (e) => {
      const p = JSON.parse((e as MessageEvent).data) as Patch;
      this.last = Date.now(); this.lost = false;
      if (waiting?.rows) p.rows = [...waiting.rows, ...(p.rows ?? [])];
      waiting = p;
      frame ||= requestAnimationFrame(() => { frame = 0; const w = waiting!; waiting = null; this.show(w); for (const f of listeners) f(w); });
    });
    es.onerror = () => this.off();
  }
  close() { this.es?.close(); this.es = undefined; }
  show(p: Patch) {
    this.className = "live " + p.live[0]; this.lastClock = p.clock;
    this.text("[data-w]", p.live[1]); this.text("[data-d]", p.live[2]);
    const c = document.getElementById("clock"); if (c && c.textContent !== p.clock) c.textContent = p.clock;
    const b = document.querySelector('[data-badge="inbox"]'); if (b && p.nav) b.textContent = p.nav;
  }
  off() {
    if (this.lost) return;
    this.lost = true; this.className = "live off";
    this.text("[data-w]", this.dataset.lost!); this.text("[data-d]", this.lastClock.slice(-5) + " " + this.dataset.asof);
  }
  text(sel: string, s: string) { const el = this.querySelector(sel); if (el && el.textContent !== s) el.textContent = s; }
}
export const startLive = () => customElements.define("live-badge", LiveBadge);
