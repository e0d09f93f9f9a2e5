// A report inside a frame of an origin of its own: its script draws, and reaches nothing of the app.
export default function ({ data, parentElement }) {
  const frame = parentElement.querySelector("iframe");
  frame.style.colorScheme = data.theme;
  if (frame.dataset.shown === data.digest) return;
  frame.dataset.shown = data.digest;
  frame.srcdoc = data.html;
}
