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

  // The label graph: what a label is joined to, finding one, and zooming by a smaller view box.
  for (const picture of document.querySelectorAll(".network")) {
    const tools = picture.closest(".card").querySelector(".tools");
    const told = tools.querySelector(".told");
    const find = tools.querySelector(".find");
    const nodes = [...picture.querySelectorAll(".node")];
    const edges = [...picture.querySelectorAll(".edge")];
    const whole = picture.viewBox.baseVal;
    const [width, height] = [whole.width, whole.height];
    const joined = nodes.map(() => []);
    for (const edge of edges) {
      joined[edge.dataset.a].push(edge, nodes[edge.dataset.b]);
      joined[edge.dataset.b].push(edge, nodes[edge.dataset.a]);
    }
    const light = (kept) => {
      for (const e of picture.querySelectorAll(".on")) e.classList.remove("on");
      for (const e of kept) e.classList.add("on");
      picture.classList.toggle("some", kept.length > 0);
    };
    const search = () => {
      const wanted = find.value.trim().toLowerCase();
      const hits = wanted ? nodes.filter((n) => n.dataset.tip.split("\n")[0].toLowerCase().includes(wanted)) : [];
      light(hits);
      picture.classList.toggle("some", wanted !== "");
      told.textContent = wanted ? hits.length + (hits.length === 1 ? " label" : " labels") : "";
      return hits;
    };
    find.addEventListener("input", search);
    picture.addEventListener("pointerover", (event) => {
      const n = event.target.dataset.n;
      if (n !== undefined) light([nodes[n], ...joined[n]]);
      else if (event.target === picture) search();
    });
    picture.addEventListener("pointerleave", search);
    const zoom = (factor, at) => {
      const box = picture.viewBox.baseVal;
      const w = Math.min(width, Math.max(width / 12, box.width * factor));
      const h = w * height / width;
      const x = at.x - (at.x - box.x) * w / box.width;
      const y = at.y - (at.y - box.y) * h / box.height;
      box.x = Math.min(width - w, Math.max(0, x));
      box.y = Math.min(height - h, Math.max(0, y));
      box.width = w;
      box.height = h;
      picture.classList.toggle("zoomed", w < width);
    };
    const middle = () => {
      const hits = find.value ? search() : [];
      const box = picture.viewBox.baseVal;
      if (hits.length === 1) return { x: hits[0].cx.baseVal.value, y: hits[0].cy.baseVal.value };
      return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
    };
    const factors = { in: 1 / 1.6, out: 1.6, all: Infinity };
    for (const button of tools.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => zoom(factors[button.dataset.zoom], middle()));
    }
    const place = (event) => {
      const screen = picture.getScreenCTM().inverse();
      return new DOMPoint(event.clientX, event.clientY).matrixTransform(screen);
    };
    picture.addEventListener("wheel", (event) => {
      // without the key the wheel scrolls the page, as everywhere
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1 / 1.25 : 1.25, place(event));
    }, { passive: false });
    picture.addEventListener("pointermove", (event) => {
      if (event.buttons !== 1 || !picture.classList.contains("zoomed")) return;
      const box = picture.viewBox.baseVal;
      const scale = box.width / picture.getBoundingClientRect().width;
      box.x = Math.min(width - box.width, Math.max(0, box.x - event.movementX * scale));
      box.y = Math.min(height - box.height, Math.max(0, box.y - event.movementY * scale));
    });
    tools.hidden = false;
  }

  // Rows to browse: all are in the page; those that match are shown, some at a time.
  for (const box of document.querySelectorAll(".browse")) {
    const step = 8;
    let limit = step;
    const known = [...box.querySelectorAll("datalist option")].map((option) => option.value.toLowerCase());
    const rows = [...box.querySelectorAll(".row")].map((row) => ({
      row,
      text: row.textContent.toLowerCase() + " " + row.querySelector(".id").title.toLowerCase(),
      labels: row.dataset.labels.split(" ").filter(Boolean).map((place) => known[place]),
    }));
    const field = (name) => box.querySelector(name)?.value.trim() ?? "";
    const more = box.querySelector(".more");
    const draw = () => {
      const words = field(".find").toLowerCase();
      const label = field(".label").toLowerCase();
      const state = field(".state");
      const source = field(".source");
      let hits = 0;
      for (const { row, text, labels } of rows) {
        const fits = (!state || row.dataset.state === state) && (!source || row.dataset.source === source)
          && (!words || text.includes(words)) && (!label || labels.some((name) => name.includes(label)));
        row.hidden = !fits || ++hits > limit;
      }
      box.querySelector(".told").textContent = hits + " of " + rows.length + " rows";
      more.hidden = hits <= limit;
    };
    const again = () => { limit = step; draw(); };
    for (const input of box.querySelectorAll(".tools input, .tools select")) input.addEventListener("input", again);
    more.addEventListener("click", () => { limit += 3 * step; draw(); });
    box.querySelector(".tools").hidden = false;
    draw();
  }
  document.documentElement.dataset.ready = "1";
})();
