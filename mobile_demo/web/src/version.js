/** The page's version, that of the Python package. */
export const VERSION = "0.1.0";
