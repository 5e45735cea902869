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
          Cell.left(one.name, nameWidth), Cell.left(one.elementType.rawValue, 4),
          Cell.left(one.cache.rawValue, 4), one.shapeDescription,
        ].joined(separator: "  "))
    }
  }

  static func printCeilings(_ ceilings: MachineCeilings) {
    let titles = ["DRAM", "L3", "L2", "f32", "bf16", "exp"]
    let units = ["GB/s", "GB/s", "GB/s", "GFLOP/s", "GFLOP/s", "G/s"]
    Cell.line(
      [Cell.left("ceilings (\(ceilings.variant)), best", 26)]
        + zip(titles, units).map { Cell.right("\($0) \($1)", 13) })
    for team in ceilings.teams {
      let rates = [team.dram, team.l3, team.l2, team.fmaF32, team.fmaBF16, team.exp]
      Cell.line(
        [Cell.left("  \(team.threads) thread\(team.threads == 1 ? "" : "s")", 26)]
          + rates.map { Cell.right($0.map { Cell.number($0.best * 1e-9) } ?? "-", 13) })
      Cell.line(
        [Cell.left("    median", 26)]
          + rates.map { Cell.right($0.map { Cell.number($0.median * 1e-9) } ?? "-", 13) })
    }
  }

  func printHeader() {
    Cell.line(
      columns(
        "kernel", "shape", "dtype", "variant", "threads", "cache", "min", "median", "GB/s", "GFLOP/s",
        "Gelem/s", "scratch", "ceiling", "fraction"))
  }

  func print(_ row: BenchmarkRow, of one: BenchmarkCase) {
    Cell.line(
      columns(
        row.name, one.shapeDescription, row.dtype, row.variant, "\(row.threads)", row.cache.rawValue,
        Cell.time(row.nsMin), Cell.time(row.nsMedian), Cell.number(row.bytesPerSecond * 1e-9),
        row.flops == 0 ? "-" : Cell.number(row.flopsPerSecond * 1e-9),
        Cell.number(row.elementsPerSecond * 1e-9), SystemMemory.describe(row.scratchBytes),
        row.ceiling.rawValue, decimal(row.fractionOfCeiling, 3)))
  }

  private func columns(_ cells: String...) -> [String] {
    let widths = [nameWidth, shapeWidth, 5, 7, 7, 5, 8, 8, 7, 7, 7, 9, 8, 8]
    return zip(cells, widths).enumerated().map { index, cell in
      // text to the left, numbers to the right
      index < 4 || index == 5 || index == 12 ? Cell.left(cell.0, cell.1) : Cell.right(cell.0, cell.1)
    }
  }
}
