import Foundation

/// The cells of tables for people.
enum Cell {
  /// Three digits or so.
  static func number(_ value: Double) -> String {
    decimal(value, value < 1 ? 3 : value < 10 ? 2 : 1)
  }

  static func time(_ nanoseconds: Double) -> String {
    if nanoseconds < 1e3 { return "\(number(nanoseconds)) ns" }
    if nanoseconds < 1e6 { return "\(number(nanoseconds * 1e-3)) us" }
    return nanoseconds < 1e9 ? "\(number(nanoseconds * 1e-6)) ms" : "\(number(nanoseconds * 1e-9)) s"
  }

  static func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }

  static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  /// Prints rows in columns as wide as their longest cells: the first to the left, numbers after it to the right.
  static func table(_ rows: [[String]]) {
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in
      rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
    }
    for row in rows {
      line(
        zip(row, widths).enumerated().map { index, cell in
          index == 0 ? left(cell.0, cell.1) : right(cell.0, cell.1)
        })
    }
  }

  /// Prints a row, which appears at once also in a pipe.
  static func line(_ cells: [String]) {
    print(cells.joined(separator: "  "))
    fflush(nil)
  }
}
