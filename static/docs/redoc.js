// Starts Redoc on this service's own schema, in the fonts of the system.
const system = "system-ui, sans-serif";
window.Redoc.init(
  "/openapi.json",
  {
    hideDownloadButton: false,
    theme: { typography: { fontFamily: system, headings: { fontFamily: system } } },
  },
  document.getElementById("redoc"),
);
