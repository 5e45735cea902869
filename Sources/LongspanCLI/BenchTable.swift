import Foundation
import LongspanKernels
import LongspanMeasure

/// The rows of `longspan bench` for people, in columns as wide as the cases need.
struct BenchTable {
  private let cases: [BenchmarkCase]
  private let nameWidth: Int
  private let shapeWidth: Int

  init(_ cases: [BenchmarkCase]) {
    self.cases = cases
    nameWidth = cases.map(\.name.count).max() ?? 0
    shapeWidth = cases.map(\.shapeDescription.count).max() ?? 0
  }

  func printCases() {
    for one in cases {
      Swift.print(
        [
          Self.left(one.name, nameWidth), Self.left(one.elementType.rawValue, 4),
          Self.left(one.cache.rawValue, 4), one.shapeDescription,
        ].joined(separator: "  "))
    }
  }

  static func printCeilings(_ ceilings: MachineCeilings) {
    let titles = ["DRAM", "L3", "L2", "f32", "bf16", "exp"]
    let units = ["GB/s", "GB/s", "GB/s", "GFLOP/s", "GFLOP/s", "G/s"]
    line(
      [left("ceilings (\(ceilings.variant)), best", 26)]
        + zip(titles, units).map { right("\($0) \($1)", 13) })
    for team in ceilings.teams {
      let rates = [team.dram, team.l3, team.l2, team.fmaF32, team.fmaBF16, team.exp]
      line(
        [left("  \(team.threads) thread\(team.threads == 1 ? "" : "s")", 26)]
          + rates.map { right($0.map { number($0.best * 1e-9) } ?? "-", 13) })
      line(
        [left("    median", 26)] + rates.map { right($0.map { number($0.median * 1e-9) } ?? "-", 13) })
    }
  }

  func printHeader() {
    Self.line(
      columns(
        "kernel", "shape", "dtype", "variant", "threads", "cache", "min", "median", "GB/s", "GFLOP/s",
        "Gelem/s", "scratch", "ceiling", "fraction"))
  }

  func print(_ row: BenchmarkRow, of one: BenchmarkCase) {
    Self.line(
      columns(
        row.name, one.shapeDescription, row.dtype, row.variant, "\(row.threads)", row.cache.rawValue,
        Self.time(row.nsMin), Self.time(row.nsMedian), Self.number(row.bytesPerSecond * 1e-9),
        row.flops == 0 ? "-" : Self.number(row.flopsPerSecond * 1e-9),
        Self.number(row.elementsPerSecond * 1e-9), SystemMemory.describe(row.scratchBytes),
        row.ceiling.rawValue, decimal(row.fractionOfCeiling, 3)))
  }

  private func columns(_ cells: String...) -> [String] {
    let widths = [nameWidth, shapeWidth, 5, 7, 7, 5, 8, 8, 7, 7, 7, 9, 8, 8]
    return zip(cells, widths).enumerated().map { index, cell in
      // text to the left, numbers to the right
      index < 4 || index == 5 || index == 12 ? Self.left(cell.0, cell.1) : Self.right(cell.0, cell.1)
    }
  }

  /// Three digits or so.
  private static func number(_ value: Double) -> String {
    decimal(value, value < 1 ? 3 : value < 10 ? 2 : 1)
  }

  private static func time(_ nanoseconds: Double) -> String {
    if nanoseconds < 1e3 { return "\(number(nanoseconds)) ns" }
    if nanoseconds < 1e6 { return "\(number(nanoseconds * 1e-3)) us" }
    return nanoseconds < 1e9 ? "\(number(nanoseconds * 1e-6)) ms" : "\(number(nanoseconds * 1e-9)) s"
  }

  private static func left(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }

  private static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  /// Rows appear as they are measured, also in a pipe.
  private static func line(_ cells: [String]) {
    Swift.print(cells.joined(separator: "  "))
    fflush(nil)
  }
}
