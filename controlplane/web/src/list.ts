// A list of rows with one cursor. Rows carry data-k (a stable name, equal to their id) and data-href (the page behind them).
import { onAction } from "./keys";

export class RowList extends HTMLElement {
  table: HTMLTableElement | null = null;
  scroller!: HTMLElement;
  cursor: string | null = null;
  private off?: () => void;

  connectedCallback() {
    this.table = this.querySelector("table.grid"); this.scroller = this.querySelector(".scroll")!;
    this.off = onAction((a, e) => this.action(a, e));
    this.table?.addEventListener("click", this.clicked);
    this.ready();
  }
  disconnectedCallback() { this.off?.(); }
  ready() { const r = this.rows()[0]; if (r) this.moveTo(r, false); }

  rows(): HTMLTableRowElement[] { return this.table ? [...this.table.tBodies].flatMap((b) => [...b.rows]).filter((r) => r.dataset.k) : []; }
  row(k: string | null) { return k ? (document.getElementById(k) as HTMLTableRowElement | null) : null; }

  moveTo(r: HTMLTableRowElement, focus = true) {
    const o = this.row(this.cursor);
    if (o) { o.classList.remove("cur"); o.tabIndex = -1; }
    this.cursor = r.dataset.k!; r.classList.add("cur"); r.tabIndex = 0;
    if (focus) { r.focus({ preventScroll: true }); r.scrollIntoView({ block: "nearest" }); }
    this.moved(r);
  }
  moved(_: HTMLTableRowElement) {}
  neighbour(r: HTMLTableRowElement, d: number): HTMLTableRowElement | null | Promise<HTMLTableRowElement | null> {
    return (d > 0 ? r.nextElementSibling : r.previousElementSibling) as HTMLTableRowElement | null;
  }
  async step(d: number): Promise<HTMLTableRowElement | null> {
    const r = this.row(this.cursor); if (!r) return null;
    const n = await this.neighbour(r, d);
    if (!n?.dataset.k) return null;
    this.moveTo(n); return n;
  }
  open(r: HTMLTableRowElement) { if (r.dataset.href) location.href = r.dataset.href; }

  action(a: string, _?: KeyboardEvent): boolean | void {
    const r = this.row(this.cursor);
    switch (a) {
      case "next": void this.step(1); return true;
      case "prev": void this.step(-1); return true;
      case "first": { const f = this.rows()[0]; if (f) this.moveTo(f); this.scroller.scrollTo({ top: 0 }); return true; }
      case "open": if (r) { this.open(r); return true; } return;
    }
  }
  clicked = (e: Event) => {
    const el = e.target as HTMLElement;
    const r = el.closest<HTMLTableRowElement>("tr[data-k]"); if (!r) return;
    if (el.closest("a,button,input")) return;
    this.moveTo(r);
  };
}
customElements.define("row-list", RowList);
