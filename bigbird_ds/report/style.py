"""The style of the page; colors of lines are those of Okabe and Ito, told apart by most eyes."""

STYLE = """
:root { --text: #1c1e21; --faint: #666; --page: #fff; --box: #f5f6f7; --rule: #d8dadd;
  --mark: #fff3c4; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b0609c; --c4: #a87800;
  --c5: #2f97c9; --c6: #6a5acd; --c7: #555; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6e8; --faint: #a0a4a8; --page: #17191c;
  --box: #212428; --rule: #3a3e43; --mark: #4a4010; --c0: #56b4e9; --c1: #ff9248; --c2: #3fd0a4;
  --c3: #e59ad0; --c4: #f0e442; --c5: #8fd3f4; --c6: #b3a7ff; --c7: #bbb; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 1160px; margin: 0 auto; padding: 1rem 1.2rem 3rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem;
  border-bottom: 1px solid var(--rule); } h3 { font-size: 1rem; margin: 1rem 0 .3rem;
  overflow-wrap: anywhere; }
nav a { color: var(--c0); margin-right: 1em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; }
td, th { text-align: left; vertical-align: top; padding: .16rem .8rem .16rem 0;
  border-bottom: 1px solid var(--rule); overflow-wrap: anywhere; }
th { font-weight: 600; } td small { color: var(--faint); display: block; }
td:first-child { white-space: nowrap; } tr.differs td { background: var(--mark); }
td.number { text-align: right; white-space: nowrap; }
pre { background: var(--box); padding: .7rem; overflow-x: auto; font-size: .8rem;
  white-space: pre; }
p.faint, summary { color: var(--faint); } summary { cursor: pointer; }
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr));
  gap: 0 2rem; }
.runs > * { min-width: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--box); padding: .6rem; border-radius: 6px; }
figcaption { font-size: .84rem; } .key { display: inline-block; margin-right: .8em;
  overflow-wrap: anywhere; } .key::before { content: ""; display: inline-block; width: 1.4em;
  margin-right: .35em; border-top: 3px solid var(--line); vertical-align: middle; }
.key.dashed::before { border-top-style: dashed; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 12px; fill: var(--faint); }
svg .grid { stroke: var(--rule); } svg path { fill: none; stroke: var(--line); stroke-width: 1.6; }
svg path.dashed { stroke-dasharray: 6 4; } svg circle { fill: var(--line); }
.bar { display: flex; height: 1.3rem; border-radius: 4px; overflow: hidden; margin: .3rem 0; }
.bar div { background: var(--line); min-width: 1px; }
.sample { margin: .5rem 0; } .sample .right { color: var(--c2); font-weight: 600; }
.sample .wrong { color: var(--c1); font-weight: 600; } .sample s { color: var(--faint); }
""" + "\n".join(f".c{number} {{ --line: var(--c{number}); }}" for number in range(8))
