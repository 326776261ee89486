// One string of HTML from the server, laid over what is there: an element that is still the same stays,
// so a reader keeps the place, a selection lasts, and a status is announced only when its words change.

const lay = (old, fresh) => {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  layChildren(old, fresh);
};
const layChildren = (old, fresh) => {
  const here = [...old.childNodes];
  const wanted = [...fresh.childNodes];
  wanted.forEach((child, place) => (place < here.length ? lay(here[place], child) : old.append(child)));
  here.slice(wanted.length).forEach((child) => child.remove());
};

export default {
  props: { html: String },
  template: `<div class="s"></div>`,
  mounted() { this.$el.innerHTML = this.html; },
  watch: {
    html(next) {
      const fresh = document.createElement("div");
      fresh.innerHTML = next;
      layChildren(this.$el, fresh);
    },
  },
};
