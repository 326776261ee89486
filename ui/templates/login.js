// One tap on a demo log-in fills the form.
for (const choice of document.querySelectorAll("[data-fill-email]")) {
  choice.addEventListener("click", () => {
    document.getElementById("email").value = choice.dataset.fillEmail;
    document.getElementById("password").value = choice.dataset.fillPassword;
    const submit = document.querySelector('[data-testid="login-submit"]');
    submit.scrollIntoView({ block: "nearest" });
    submit.focus();
  });
}
