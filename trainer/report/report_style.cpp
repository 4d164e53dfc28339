#include "trainer/report/report_sections.h"

namespace graft::report {

std::string style() {
  return R"css(
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1a2330; --soft: #566274; --line: #dfe4ea; --panel: #f5f7f9;
  --one: #2461a6; --two: #b8521a; --good: #17703e; --bad: #b1271b; --good-soft: #e3f3e9; --bad-soft: #fbe6e3; --mark: #d9e8fa; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #11151b; --ink: #e2e8ef; --soft: #97a4b5; --line: #2a323d; --panel: #191f28;
  --one: #6fb1f3; --two: #ef9a62; --good: #63cc90; --bad: #ff8d82; --good-soft: #16311f; --bad-soft: #3a1a17; --mark: #1d3a5c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 0 28px 64px; }
.privacy { margin: 0; padding: 7px 28px; background: var(--panel); border-bottom: 1px solid var(--line); color: var(--soft); font-size: 13px; text-align: center; }
.privacy.rows { background: var(--bad-soft); color: var(--bad); font-weight: 600; }
header { padding: 40px 0 6px; }
h1 { margin: 0; font-size: 31px; line-height: 1.2; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere; }
header p { margin: 6px 0 0; color: var(--soft); }
h2 { margin: 46px 0 2px; padding-top: 14px; border-top: 1px solid var(--line); font-size: 20px; font-weight: 640; }
h3 { margin: 26px 0 8px; font-size: 15px; font-weight: 640; }
.lead { margin: 0 0 16px; color: var(--soft); max-width: 46em; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(172px, 1fr)); gap: 12px; margin: 26px 0 0; }
.card { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px 13px; }
.card span { display: block; color: var(--soft); font-size: 13px; }
.card b { display: block; white-space: nowrap; font-size: 24px; line-height: 1.25; font-weight: 640; font-variant-numeric: tabular-nums; }
.card.good b { color: var(--good); } .card.bad b { color: var(--bad); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(400px, 100%), 1fr)); gap: 20px 24px; }
figure { margin: 0; } .plot { min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline; margin-bottom: 4px; font-size: 13px; color: var(--soft); }
figcaption b { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 10.5px system-ui, sans-serif; fill: var(--soft); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); stroke-width: 1; fill: none; }
.series { fill: none; stroke-width: 1.9; stroke-linejoin: round; stroke-linecap: round; }
.line-0 { stroke: var(--one); } .line-1 { stroke: var(--two); } .series.faint { stroke-width: 1; opacity: .33; }
.dot-0 { fill: var(--one); } .dot-1 { fill: var(--two); }
.series.bars { fill: var(--one); stroke: none; opacity: .85; }
.key::before { content: ""; display: inline-block; width: 15px; height: 0; border-top: 3px solid var(--one); border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.key-1::before { border-color: var(--two); } .key.faint::before { opacity: .4; border-top-width: 2px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 12.5px; }
th, td { padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
.badge { display: inline-block; padding: 1px 9px; border-radius: 99px; font-size: 12.5px; font-weight: 600; white-space: nowrap; }
.badge.good { background: var(--good-soft); color: var(--good); } .badge.bad { background: var(--bad-soft); color: var(--bad); }
.bar { display: block; height: 9px; border-radius: 5px; background: var(--one); min-width: 2px; vertical-align: middle; }
.bar.before { background: var(--soft); opacity: .55; }
.compact { width: auto; } .compact th, .compact td { padding-right: 34px; }
.track { width: 42%; min-width: 150px; } td.track { vertical-align: middle; } .bars td:first-child { width: 1%; min-width: 150px; } .track > div { background: var(--panel); border-radius: 5px; line-height: 0; height: 9px; }
.confusion { width: auto; } .confusion td, .confusion th { padding: 4px 8px; border: 1px solid var(--line); } .confusion td { text-align: right; min-width: 34px; }
.confusion th.row { text-align: left; color: var(--ink); font-weight: 500; white-space: nowrap; } .confusion .zero { color: transparent; }
pre, code, .hash { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: 6px 0 0; padding: 11px 14px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.hash { color: var(--soft); overflow-wrap: anywhere; font-size: 11.5px; }
.mask { white-space: pre-wrap; overflow-wrap: anywhere; } .mask mark { background: var(--mark); color: inherit; border-radius: 3px; padding: 1px 0; box-shadow: 0 1.5px 0 var(--one); }
.newline { color: var(--soft); opacity: .6; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 22px; margin: 10px 0 0; font-size: 13.5px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.answers td { width: 25%; white-space: pre-wrap; overflow-wrap: anywhere; }
.right { color: var(--good); } .wrong { color: var(--bad); }
.note { margin: 8px 0; padding: 6px 14px; border-left: 3px solid var(--line); background: var(--panel); border-radius: 0 8px 8px 0; font-size: 13.5px; }
.note.warning { border-left-color: var(--two); }
footer { margin-top: 52px; color: var(--soft); font-size: 13px; }
@media (max-width: 640px) { main { padding: 0 16px 40px; } .track { min-width: 90px; } }
@media print { :root { color-scheme: light; } body { font-size: 11px; } main { max-width: none; padding: 0; } h2 { break-after: avoid; }
  figure, .card, tr, pre { break-inside: avoid; } .bar, .badge, mark, td, .card, .privacy { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
)css";
}

}  // namespace graft::report
