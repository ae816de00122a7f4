(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const narrow = window.matchMedia("(max-width: 720px)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // {"$color": name} stands for a colour of the style sheet, so that light and dark are decided in one place
  const paint = (node, style) => {
    if (Array.isArray(node)) return node.map((item) => paint(item, style));
    if (node === null || typeof node !== "object") return node;
    if (typeof node.$color === "string") return style.getPropertyValue("--" + node.$color).trim();
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, paint(value, style)]));
  };

  const draw = async () => {
    const style = getComputedStyle(document.documentElement);
    const family = getComputedStyle(document.body).fontFamily;
    let drawn = 0;
    for (const figure of figures) {
      const layout = paint(figure.layout, style);
      layout.font.family = family;
      layout.hoverlabel.font.family = family;
      for (const axis of [layout.xaxis, layout.yaxis]) {
        if (axis && narrow.matches && axis.tickfont) axis.tickfont.size = 11;
      }
      await Plotly.react(figure.id, paint(figure.data, style), layout, { responsive: true, displayModeBar: false });
      drawn += 1;
    }
    document.documentElement.dataset.plots = String(drawn);
  };

  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
  draw();
})();
