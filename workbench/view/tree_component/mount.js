// What every component begins with. Streamlit calls a component on each update, and may close it
// and open it again in the same place: a closed view leaves its markup as it found it.
const views = new WeakMap();
const memory = new Map(); // what each view was told, by the name it is given: Streamlit's key changes

// The view of this place, made by `create(root, memory)` the first time; its name's memory starts
// as `blank`. Returns the cleanup that Streamlit asks for.
function mount({ data, parentElement, setTriggerValue }, create, blank) {
  let view = views.get(parentElement);
  if (!view) {
    const root = parentElement.querySelector(".view"), untouched = root.cloneNode(true);
    if (!memory.has(data.view)) memory.set(data.view, blank);
    view = create(root, memory.get(data.view));
    view.shut = () => { view.close(); root.replaceWith(untouched); views.delete(parentElement); };
    views.set(parentElement, view);
  }
  view.tell = (name, what) => setTriggerValue(name, { ...what, at: Date.now() });
  view.update(data);
  return view.shut;
}
