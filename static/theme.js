// Runs before the first paint, so that a chosen scheme does not flash. "auto" is the system's own.

try {
  document.documentElement.dataset.theme = localStorage.getItem("studio.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto";
}
