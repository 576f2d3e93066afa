"""The style sheet of reports, for screen and paper."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 Georgia, "Times New Roman", serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1, h2, h3 { font-family: "Helvetica Neue", Arial, sans-serif; line-height: 1.2; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font: 13px/1.35 "Helvetica Neue", Arial, sans-serif; margin: .6rem 0 1.2rem;
  border-top: 1.5px solid #222; border-bottom: 1.5px solid #222; font-variant-numeric: tabular-nums; }
thead { border-bottom: 1px solid #222; } th, td { padding: .18rem .6rem; white-space: nowrap; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { font-size: .85rem; color: #555; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .85rem; white-space: pre-wrap; }
.equation { margin: .3rem 0 .3rem 2rem; text-indent: -1rem; } .small { color: #555; font-size: .85rem; }
@media print {
  @page { margin: 18mm; }
  body { font-size: 10.5pt; max-width: none; margin: 0; padding: 0; } table { font-size: 8pt; } th, td { padding: .1rem .35rem; }
  h2, h3 { break-after: avoid; } figure, tr, .equation { break-inside: avoid; } .wide { overflow: visible; }
}
"""
