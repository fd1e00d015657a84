/** Light and dark: the system's choice until the person chooses; the choice is kept. */

const KEY = "hummingbird-theme";

/** @param {HTMLButtonElement} button */
export function followTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => localStorage.getItem(KEY) ?? (system.matches ? "dark" : "light");
  const show = () => {
    if (localStorage.getItem(KEY)) document.documentElement.dataset.theme = theme();
    button.setAttribute("aria-pressed", String(theme() === "dark"));
  };
  system.addEventListener("change", show);
  button.addEventListener("click", () => {
    localStorage.setItem(KEY, theme() === "dark" ? "light" : "dark");
    show();
  });
  show();
}
