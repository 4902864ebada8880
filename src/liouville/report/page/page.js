"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const phone = matchMedia("(max-width: 46rem)");
  const palettes = JSON.parse(document.getElementById("palettes").textContent);
  const options = { displayModeBar: false, responsive: true };

  // "@ink", "@soft", "@grid" are the page's colours, "@c2/5" is that of class 2 of 5
  function colour(word) {
    const known = /^@c(\d+)\/(\d+)$/.exec(word);
    if (known) {
      const palette = palettes[dark.matches ? "dark" : "light"][Number(known[2]) <= palettes.few ? "few" : "many"];
      return palette[Number(known[1]) % palette.length];
    }
    return getComputedStyle(document.documentElement).getPropertyValue("--" + word.slice(1)).trim();
  }

  function coloured(value, key) {
    if (Array.isArray(value)) return value.map((part) => coloured(part, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, coloured(part, name)]));
    }
    return typeof value === "string" && value[0] === "@" && /color$/i.test(key) ? colour(value) : value;
  }

  function dressed(figure) {
    const { data, layout } = coloured(figure, "");
    const plain = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("@ink"), size: 13, family: "system-ui, sans-serif" },
      margin: { l: 56, r: 12, t: 12, b: 48 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      hoverlabel: { font: { size: 12 } },
    };
    let { height, ...rest } = layout;
    if (layout.grid && phone.matches) {
      rest.grid = { ...layout.grid, rows: layout.grid.columns * layout.grid.rows, columns: 1 };
      height *= 0.75 * rest.grid.rows;
    }
    return { data, height, layout: { ...plain, ...rest } };
  }

  function draw(node, figure) {
    const { data, height, layout } = dressed(figure);
    if (layout.scene) {  // as wide as its height needs, else the titles of its axes lie outside
      Object.assign(node.style, { aspectRatio: 1.25, maxHeight: `${height}px` });
    } else {
      node.style.height = `${height}px`;
    }
    return Plotly.react(node, data, layout, options).catch((error) => failed(node, error));
  }

  function failed(node, error) {
    node.textContent = "This figure cannot be drawn here (" + error.message + "); its numbers are in the table below.";
  }

  function floats(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  }

  // the coordinates of every group of points at one position of the slider
  function coordinates(parts, numbers, position) {
    const total = parts.sizes.reduce((a, b) => a + b, 0);
    let start = position * total;
    return parts.sizes.map((size) => {
      const axes = [0, 1, 2].map((k) => Array.from({ length: size }, (_, i) => numbers[3 * (start + i) + k]));
      start += size;
      return axes;
    });
  }

  function moving(id) {
    const parts = JSON.parse(document.querySelector(`[data-parts="${id}"]`).textContent);
    const numbers = floats(parts.points);
    const find = (name) => document.getElementById(`${id}-${name}`);
    const [range, where, play, turn] = ["depth", "where", "play", "turn"].map(find);
    let timer = 0;

    function placed(figure, names) {
      const found = coordinates(parts, numbers, Number(range.value));
      const data = figure.data.map((trace, k) => {
        const at = Object.fromEntries(names.map((name, a) => [name, found[k][a]]));
        return { ...trace, ...at };
      });
      const { scene, ...flat } = figure.layout;
      if (!scene) return { data, layout: flat };
      const camera = { ...scene.camera, eye: parts.eye || scene.camera.eye };
      return { data, layout: { ...flat, scene: { ...scene, camera } } };
    }

    function show() {
      const label = parts.labels[Number(range.value)];
      range.setAttribute("aria-valuetext", label);
      where.textContent = label;
      const space = find("space");
      if (space && space.layout && space.layout.scene.camera) parts.eye = space.layout.scene.camera.eye;
      const drawn = [draw(find("plane"), placed(parts.plane, ["x", "y"]))];
      if (parts.space) drawn.push(draw(space, placed(parts.space, ["x", "y", "z"])));
      return Promise.all(drawn);
    }

    function step() {
      if (Number(range.value) >= Number(range.max)) return stop();
      range.value = Number(range.value) + 1;
      return show();
    }

    function stop() {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    }

    range.addEventListener("input", show);
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(range.value) >= Number(range.max)) range.value = 0;
      play.textContent = "Pause";
      timer = setInterval(step, 120);
    });
    if (turn) {
      turn.addEventListener("input", () => {
        const angle = (Number(turn.value) * Math.PI) / 180;
        turn.setAttribute("aria-valuetext", `${turn.value} degrees`);
        const { x, y, z } = parts.space.layout.scene.camera.eye;
        const eye = { x: Math.hypot(x, y) * Math.cos(angle), y: Math.hypot(x, y) * Math.sin(angle), z };
        Plotly.relayout(find("space"), { "scene.camera.eye": eye });
      });
    }
    return show;
  }

  const charts = [...document.querySelectorAll("[data-chart]")].map((source) => {
    const figure = JSON.parse(source.textContent);
    return () => draw(document.getElementById(source.dataset.chart), figure);
  });
  charts.push(...[...document.querySelectorAll("[data-motion]")].map((node) => moving(node.dataset.motion)));

  const all = () => Promise.all(charts.map((each) => each()));
  dark.addEventListener("change", all);
  phone.addEventListener("change", all);
  all().then(() => document.documentElement.setAttribute("data-drawn", "yes"));
})();
