"""The style sheet of reports, for screen and paper."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 Georgia, "Times New Roman", serif; color: #222; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1, h2, h3 { font-family: "Helvetica Neue", Arial, sans-serif; line-height: 1.2; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; }
.wide { overflow-x: auto; background:
  linear-gradient(to right, #fff 30%, #fff0), linear-gradient(to left, #fff 30%, #fff0) 100% 0,
  linear-gradient(to right, #0003, #0000), linear-gradient(to left, #0003, #0000) 100% 0;
  background-size: 3rem 100%, 3rem 100%, .8rem 100%, .8rem 100%; background-repeat: no-repeat;
  background-attachment: local, local, scroll, scroll; }
.note { font-size: .85rem; color: #444; margin: .2rem 0 0; }
.table { margin-bottom: 1.6rem; } .author { margin: .2rem 0; font-style: italic; }
table { border-collapse: collapse; font: 13px/1.35 "Helvetica Neue", Arial, sans-serif; margin: .6rem 0 .5rem;
  border-top: 1.5px solid #222; border-bottom: 1.5px solid #222; font-variant-numeric: tabular-nums; }
thead { border-bottom: 1px solid #222; } th, td { padding: .18rem .6rem; white-space: nowrap; vertical-align: top; }
td[style*="left"] { white-space: normal; min-width: 7rem; max-width: 22rem; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; }
figure img.plain { max-width: 42rem; width: 100%; } figcaption { font-size: .85rem; color: #555; }
@media screen and (max-width: 640px) {
  body { padding: 0 .8rem; margin: 1rem auto; } figure img, figure img.plain { max-width: none; width: 34rem; }
  .table h3::after { content: " (slide sideways for more)"; font-weight: normal; color: #777; font-size: .8rem; }
  .equation { margin-left: 1rem; }
}
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .85rem; white-space: pre-wrap; }
.equation { margin: .3rem 0 .3rem 2rem; text-indent: -1rem; overflow-wrap: anywhere; }
p, li { overflow-wrap: break-word; } .small { color: #555; font-size: .85rem; }
@media print {
  @page { margin: 18mm; }
  body { font-size: 10.5pt; max-width: none; margin: 0; padding: 0; } table { font-size: 7.5pt; } th, td { padding: .1rem .3rem; }
  td:first-child, th:first-child { white-space: normal; min-width: 8em; } thead { display: table-header-group; }
  h2, h3 { break-after: avoid; } figure, tr, .equation { break-inside: avoid; } .wide { overflow: visible; background: none; }
  figure img, figure img.plain { max-width: 100%; max-height: 23cm; width: auto; }
}
"""
