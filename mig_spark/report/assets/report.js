(() => {
  "use strict";
  // What is shown under the pointer; the charts themselves are there without it.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  const words = { number: (v) => v.toLocaleString("en", { maximumSignificantDigits: 4 }), percent: (v) => (100 * v).toFixed(1) + "%" };

  const show = (plot, event, text) => {
    if (tip.parentNode !== plot) plot.append(tip);
    tip.textContent = text;
    tip.hidden = false;
    const box = plot.getBoundingClientRect();
    const x = event.clientX - box.left;
    const left = x + 14 + tip.offsetWidth > box.width ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.left = Math.max(0, left) + "px";
    tip.style.top = Math.max(0, event.clientY - box.top - tip.offsetHeight - 8) + "px";
  };

  const nearest = (line, x) => {
    let low = 0;
    let high = line.x.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (line.x[middle] <= x) low = middle;
      else high = middle;
    }
    if (line.steps) return Math.min(low, line.y.length - 1);
    return x - line.x[low] <= line.x[high] - x ? low : high;
  };

  for (const plot of document.querySelectorAll(".plot")) {
    plot.addEventListener("pointermove", (event) => {
      const text = event.target.dataset.tip;
      if (text) show(plot, event, text);
      else if (!plot.dataset.curves) tip.hidden = true;
    });
    plot.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  for (const figure of JSON.parse(document.getElementById("figures").textContent)) {
    const plot = document.getElementById(figure.id);
    const canvas = plot.querySelector(".canvas");
    const hair = document.createElement("div");
    hair.className = "hair";
    hair.hidden = true;
    canvas.append(hair);
    plot.dataset.curves = "1";
    const { low, high, log } = figure.x;
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const x = log ? low * (high / low) ** share : low + (high - low) * share;
      hair.hidden = false;
      hair.style.left = 100 * share + "%";
      const lines = figure.lines.map((line) => line.name + "  " + words[figure.form](line.y[nearest(line, x)]));
      show(plot, event, [figure.title + "  " + words.number(x), ...lines].join("\n"));
    });
    canvas.addEventListener("pointerleave", () => { hair.hidden = true; tip.hidden = true; });
  }
  document.documentElement.dataset.ready = "1";
})();
