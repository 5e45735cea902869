import LongspanKernels
import LongspanMeasure

/// The tables of `longspan profile` for people.
struct ProfileTable {
  private let report: ProfileReport
  private let nameWidth: Int

  private static let outside = "outside kernels"

  init(_ report: ProfileReport) {
    self.report = report
    nameWidth = (report.phases.flatMap(\.kernels).map(\.name.count) + [Self.outside.count]).max() ?? 0
  }

  func printAll() {
    for phase in report.phases {
      print()
      print(
        "\(phase.name): \(phase.tokens) tokens in \(Cell.time(phase.seconds * 1e9)), "
          + "\(Cell.number(phase.tokensPerSecond)) tokens/s")
      printKernels(phase)
    }
    print()
    printLayers()
    if report.lostCalls > 0 { print("\(report.lostCalls) calls were not kept and are missing above") }
  }

  private func printKernels(_ phase: ProfileReport.Phase) {
    Cell.line(
      kernelColumns("kernel", "calls", "time", "share", "GB/s", "GFLOP/s", "ceiling", "fraction"))
    for row in phase.kernels {
      Cell.line(
        kernelColumns(
          row.name, "\(row.calls)", Cell.time(row.seconds * 1e9), Self.percent(row.share),
          Cell.number(row.bytesPerSecond * 1e-9),
          row.flops == 0 ? "-" : Cell.number(row.flopsPerSecond * 1e-9), row.ceiling.rawValue,
          decimal(row.fractionOfCeiling, 3)))
    }
    Cell.line(
      kernelColumns(
        Self.outside, "", Cell.time(phase.hostSeconds * 1e9), Self.percent(phase.hostShare), "", "", "", ""))
  }

  private func kernelColumns(_ cells: String...) -> [String] {
    let widths = [nameWidth, 7, 8, 6, 7, 7, 8, 8]
    return zip(cells, widths).enumerated().map { index, cell in
      // text to the left, numbers to the right
      index == 0 || index == 6 ? Cell.left(cell.0, cell.1) : Cell.right(cell.0, cell.1)
    }
  }

  /// Layers in rows, phases beside one another.
  private func printLayers() {
    let widths = [8, 6, 8, 8]
    func block(_ cells: [String]) -> String {
      zip(cells, widths).map { Cell.right($0.0, $0.1) }.joined(separator: "  ")
    }
    let gap = "   "
    let blockWidth = widths.reduce(0, +) + 2 * (widths.count - 1)
    Cell.line([
      Cell.left("", 9) + report.phases.map { gap + Cell.left($0.name, blockWidth) }.joined()
    ])
    Cell.line([
      Cell.left("layer", 9)
        + report.phases.map { _ in gap + block(["time", "share", "MB", "MFLOP"]) }.joined()
    ])
    for layer in layerNames {
      let blocks = report.phases.map { phase in
        guard let row = phase.layers.first(where: { $0.layer == layer }) else {
          return block(["-", "-", "-", "-"])
        }
        return block([
          Cell.time(row.seconds * 1e9), Self.percent(row.share), Cell.number(Double(row.bytes) * 1e-6),
          Cell.number(Double(row.flops) * 1e-6),
        ])
      }
      Cell.line([Cell.left(layer, 9) + blocks.map { gap + $0 }.joined()])
    }
  }

  /// Every phase goes through the same layers; the first is enough unless it made no call.
  private var layerNames: [String] {
    report.phases.map { $0.layers.map(\.layer) }.max { $0.count < $1.count } ?? []
  }

  private static func percent(_ share: Double) -> String { decimal(share * 100, 1) + "%" }
}
