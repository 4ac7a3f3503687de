// What every page needs. Page modules import what they use beyond this.
import "./place.js";
import "./times.js";
import "./theme.js";
import "./dialog.js";
import "./countdown.js";
import "./palette.js";
import "./keys.js";
import "./forms.js";
import "./notices.js";
import "./toast.js";
