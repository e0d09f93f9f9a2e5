(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = JSON.parse(document.getElementById("config").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = [...document.querySelectorAll(".plot")];
  const draw = (theme) => {
    for (const plot of plots) {
      const figure = figures[Number(plot.dataset.figure)][theme];
      Plotly.react(plot, figure.data, figure.layout, config);
    }
  };
  const current = () => (dark.matches ? "dark" : "light");
  draw(current());
  dark.addEventListener("change", () => draw(current()));
  // paper is light whatever the screen is
  window.addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
    draw("light");
  });
  window.addEventListener("afterprint", () => draw(current()));
})();
