use tests::Eden;

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let eden = Eden::start("one-server");
    eden.write_lp("air,room=kitchen temperature=21.5 1780272000000000000");
    let data = eden.data();
    let second = eden.cli(&["serve", "--data", data.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "one line that says what to do: {said}");
    assert_eq!(eden.sql("SELECT temperature FROM air").single(), 21.5);
}
